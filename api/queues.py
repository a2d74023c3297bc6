"""What came, what is owed and what was not authentic: listed, shown, and put right by a named key."""

from typing import Final, Literal

from pydantic import Field

from api import answers, answers_queues
from api.answers import Listing, RecordId, Shape
from api.answers_queues import MessageAnswer, OwedAnswer, OwedWithAttempts, RejectedAnswer
from api.operation import Call, Operation, Plain, Repeats
from api.payments import place_of
from api.queue_forms import MessagesQuery, OwedQuery, ReasonBody, RedriveBody, RedriveOneBody, RejectedQuery
from service.permissions import Permission
from storage import inbox, outbox, search
from storage.database import Unit
from storage.errors import EffectOvertaken, NotFound
from storage.search import PageCursor, RowFilter
from storage.tables import DeliveryAttempt, InboxMessage, OutboxMessage
from storage.types import OutboxStatus


class Redriven(Shape):
    """How many were made due again."""

    object: Literal["redriven"] = "redriven"
    redriven: int
    has_more: bool = Field(description="whether dead ones that fit are left")
    data: list[RecordId] = Field(description="their ids")
    overtaken: list[RecordId] = Field(
        description="ids of those that stay dead, since their sinks have had later effects of their payments"
    )


async def find_messages(call: Call) -> Listing[MessageAnswer]:
    """List inbox messages, newest first, without their bytes."""
    query: MessagesQuery = call.query
    among: dict[str, list[str]] = {"account": call.accounts(query.account)}
    for name, value in (("status", query.status), ("source", query.source), ("payment_id", query.payment)):
        if value is not None:
            among[name] = [str(value)]
    page = await call.read(lambda unit: search.messages(unit, RowFilter(among=among), place_of(query)))
    made = [answers_queues.message(row) for row in page.rows]
    return Listing[MessageAnswer](**answers.listing(made, page, is_backwards=query.is_backwards))


async def show_message(call: Call) -> MessageAnswer:
    """Show an inbox message and what was decided about it."""
    return answers_queues.message(await _message(call))


async def raw_message(call: Call) -> Plain:
    """Get the exact bytes of an inbox message.

    They may hold personal data, and are empty once retention took them.
    """
    found = await _message(call)
    headers = {"content-disposition": "attachment", "x-content-type-options": "nosniff", "x-body-digest": found.digest}
    return Plain("application/octet-stream", body=bytes(found.body), headers=headers)


async def replay_message(call: Call) -> MessageAnswer:
    """Apply an inbox message once more, by the program as it is now.

    History is only added to.
    What a person or our poller once said is not replayed.
    """
    body: ReasonBody = call.body
    found = await _message(call)
    return answers_queues.message(await call.commands.replay(found.id, reason=body.reason, by=call.actor))


async def find_owed(call: Call) -> Listing[OwedAnswer]:
    """List what is owed to sinks, newest first, without the payloads."""
    query: OwedQuery = call.query
    among: dict[str, list[str]] = {"account": call.accounts(query.account)}
    given = (("status", query.status), ("sink", query.sink), ("effect", query.effect), ("payment_id", query.payment))
    for name, value in given:
        if value is not None:
            among[name] = [str(value)]
    page = await call.read(lambda unit: search.owed(unit, RowFilter(among=among), place_of(query)))
    made = [answers_queues.owed(row) for row in page.rows]
    return Listing[OwedAnswer](**answers.listing(made, page, is_backwards=query.is_backwards))


async def show_owed(call: Call) -> OwedWithAttempts:
    """Show an effect that is owed to a sink, with every try to deliver it."""

    def read(unit: Unit) -> tuple[OutboxMessage, list[DeliveryAttempt]]:
        found = outbox.get(unit, call.path["id"])
        return found, outbox.attempts_of(unit, [found.id])

    found, tries = await call.read(read)
    call.check(found.account)
    return answers_queues.owed_with(found, tries)


async def redrive_one(call: Call) -> OwedAnswer:
    """Make a dead effect due again; the dispatcher delivers it.

    One that its sink would get after a later effect of the same payment is refused, unless `overtaken` says otherwise.
    """
    body: RedriveOneBody = call.body
    found = await call.read(lambda unit: outbox.get(unit, call.path["id"]))
    call.check(found.account)
    return answers_queues.owed(
        await call.commands.redrive(found.id, reason=body.reason, by=call.actor, overtaken=body.overtaken)
    )


async def redrive_many(call: Call) -> Redriven:
    """Make dead effects due again, of a sink, an account or an effect, the oldest first.

    Those that their sinks would get after later effects of their payments stay dead, unless `overtaken` says otherwise.
    While `has_more` is true, call again for the rest.
    """
    body: RedriveBody = call.body
    among: dict[str, list[str]] = {"account": call.accounts(body.account), "status": [OutboxStatus.DEAD.value]}
    for name in ("sink", "effect"):
        if (value := getattr(body, name)) is not None:
            among[name] = [value]
    done, overtaken, after, has_more = list[str](), list[str](), _BEFORE_ALL, True
    while has_more and len(done) < body.limit:
        place = PageCursor(body.limit - len(done), before=after)  # what was owed first is due first
        page = await call.read(lambda unit, place=place: search.owed(unit, RowFilter(among=among), place))  # type: ignore[misc]
        for owed in reversed(page.rows):
            try:
                redriven = await call.commands.redrive(
                    owed.id, reason=body.reason, by=call.actor, overtaken=body.overtaken
                )
                done.append(redriven.id)
            except NotFound:
                continue  # somebody else redrove it meanwhile
            except EffectOvertaken:
                overtaken.append(owed.id)
        has_more = page.has_more
        after = page.rows[0].id if page.rows else after
    return Redriven(redriven=len(done), has_more=has_more, data=done, overtaken=overtaken)


async def find_rejected(call: Call) -> Listing[RejectedAnswer]:
    """List deliveries that were not authentic, newest first, without bytes and headers."""
    query: RejectedQuery = call.query
    among: dict[str, list[str]] = {"account": call.accounts(query.account)}
    if query.reason is not None:
        among["reason"] = [query.reason]
    page = await call.read(lambda unit: search.rejected(unit, RowFilter(among=among), place_of(query)))
    shows_client = call.may(Permission.PERSONAL)
    made = [answers_queues.rejected(row, shows_client=shows_client) for row in page.rows]
    return Listing[RejectedAnswer](**answers.listing(made, page, is_backwards=query.is_backwards))


async def show_rejected(call: Call) -> RejectedAnswer:
    """Show a delivery that was not authentic."""

    def read(unit: Unit) -> RejectedAnswer:
        page = search.rejected(unit, RowFilter({"id": call.path["id"]}), PageCursor(1))
        if not page.rows:
            raise NotFound(f"no rejected delivery {call.path['id']}", param="id")
        call.check(page.rows[0].account)
        return answers_queues.rejected(page.rows[0], shows_client=call.may(Permission.PERSONAL))

    return await call.read(read)


async def _message(call: Call) -> InboxMessage:
    found = await call.read(lambda unit: inbox.get(unit, call.path["id"]))
    call.check(found.account)
    return found


_BEFORE_ALL: Final = "00000000-0000-0000-0000-000000000000"  #: an id before all others

_NO_ACCOUNT: Final = {404: "no such account"}
_NO_MESSAGE: Final = {404: "no such inbox message, or its account is not configured any more"}
_NO_OWED: Final = {404: "no such outbox message, or its account is not configured any more"}
_NOT_DEAD: Final = {404: "no such dead outbox message, or its account is not configured any more"}
_NO_REJECTED: Final = {404: "no such rejected delivery, or its account is not configured any more"}
_REPLAY: Final = {**_NO_MESSAGE, 422: "a statement of a person or of our poller is not replayed"}

OPERATIONS: Final = (
    Operation(
        "GET",
        "/v1/inbox",
        "list_inbox",
        "Inbox",
        Permission.READ,
        find_messages,
        Listing[MessageAnswer],
        query=MessagesQuery,
        refusals=_NO_ACCOUNT,
    ),
    Operation(
        "GET",
        "/v1/inbox/{id}",
        "get_inbox_message",
        "Inbox",
        Permission.READ,
        show_message,
        MessageAnswer,
        refusals=_NO_MESSAGE,
    ),
    Operation(
        "GET",
        "/v1/inbox/{id}/body",
        "get_inbox_body",
        "Inbox",
        Permission.BODIES,
        raw_message,
        None,
        media_types=("application/octet-stream",),
        refusals=_NO_MESSAGE,
    ),
    Operation(
        "POST",
        "/v1/inbox/{id}/replay",
        "replay_inbox_message",
        "Inbox",
        Permission.OPERATE,
        replay_message,
        MessageAnswer,
        body=ReasonBody,
        repeats=Repeats.MAY,
        refusals=_REPLAY,
    ),
    Operation(
        "GET",
        "/v1/outbox",
        "list_outbox",
        "Outbox",
        Permission.READ,
        find_owed,
        Listing[OwedAnswer],
        query=OwedQuery,
        refusals=_NO_ACCOUNT,
    ),
    Operation(
        "POST",
        "/v1/outbox/redrive",
        "redrive_outbox",
        "Outbox",
        Permission.OPERATE,
        redrive_many,
        Redriven,
        body=RedriveBody,
        repeats=Repeats.MAY,
        refusals=_NO_ACCOUNT,
    ),
    Operation(
        "GET",
        "/v1/outbox/{id}",
        "get_outbox_message",
        "Outbox",
        Permission.READ,
        show_owed,
        OwedWithAttempts,
        refusals=_NO_OWED,
    ),
    Operation(
        "POST",
        "/v1/outbox/{id}/redrive",
        "redrive_outbox_message",
        "Outbox",
        Permission.OPERATE,
        redrive_one,
        OwedAnswer,
        body=RedriveOneBody,
        repeats=Repeats.MAY,
        refusals={**_NOT_DEAD, 409: "the sink has had a later effect of the payment"},
    ),
    Operation(
        "GET",
        "/v1/rejected",
        "list_rejected",
        "Rejected deliveries",
        Permission.READ,
        find_rejected,
        Listing[RejectedAnswer],
        query=RejectedQuery,
        refusals=_NO_ACCOUNT,
    ),
    Operation(
        "GET",
        "/v1/rejected/{id}",
        "get_rejected",
        "Rejected deliveries",
        Permission.READ,
        show_rejected,
        RejectedAnswer,
        refusals=_NO_REJECTED,
    ),
)
