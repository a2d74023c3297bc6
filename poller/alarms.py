"""An account's alarm as a statement of our own: it goes through the inbox like everything else (rule R1)."""

from datetime import UTC, datetime

from statemachine import statements
from statemachine.phases import Alarm, Source
from storage import inbox
from storage.tables import InboxMessage


def alarm_message(
    account: str,
    alarm: Alarm,
    *,
    since: datetime,
    is_over: bool,
    reason: str,
    details: dict[str, float | int | str | None],
    now: datetime,
) -> InboxMessage:
    """The inbox message by which an alarm is owed to every sink, once: account, alarm, `since` and `is_over` name it.

    Record it in the unit of work that keeps what it follows from. Recorded again, it is a duplicate, or, with other
    words or figures, a variant that the worker parks; nothing more is owed in either case. `details` are figures for
    people and machines; neither they nor the reason may hold a payload or a secret.
    """
    began = since.astimezone(UTC).isoformat()
    statement = statements.AccountAlarm(alarm.value, began, is_over, reason, details)
    return inbox.new_message(
        account=account,
        source=Source.POLLER.value,
        delivery_key=f"alarm:{alarm.value}:{began}:{'over' if is_over else 'begun'}",
        body=statements.encode(statement),
        headers=(("content-type", statements.CONTENT_TYPE),),
        received_at=now,
    )
