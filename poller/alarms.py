"""Alarms of an account's pushes: when each begins and ends. The rules are pure.

Each alarm is recorded once.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from poller.silence import DeliveryRhythm
from statemachine import own_statements
from statemachine.phases import Alarm, Source
from storage import inbox, webhook_health
from storage.counts import Dead
from storage.rate_limits import Breaker
from storage.tables import InboxMessage
from storage.tables_support import PushQuality, PushWatch

#: Rejected deliveries that name this many known payments, with none verified since, are not a stranger's: ids of
#: payments are known to the provider, to us, and each to its payer.
MIN_SUSPECT_PAYMENTS: Final = 5
#: Verified deliveries that should have come meanwhile: nine silences in ten are shorter.
_MIN_MISSED_DELIVERIES: Final = math.log(10)

#: Standard score of 99 in 100, one-sided: an excess that chance explains does not alarm.
_Z_99: Final = 2.33
#: The share of the threshold below which an alarm of loss is over, so that it does not flap.
_CLOSING_SHARE: Final = 0.75

Details = dict[str, float | int | str | None]


@dataclass(frozen=True, slots=True)
class AlarmChange:
    """Beginning or end of an alarm."""

    alarm: Alarm
    since: datetime
    is_over: bool
    reason: str
    details: Details


@dataclass(frozen=True, slots=True)
class LossThreshold:
    """Push loss above which an alarm begins."""

    threshold: float = 0.2
    samples: int = 20  #: the fewest changes to judge by, recent ones counting whole


def silence_change(watch: PushWatch, rhythm: DeliveryRhythm, now: datetime, tick: timedelta) -> AlarmChange | None:
    """Return the beginning or end of the alarm for implausibly long silence.

    Silence is counted from the last delivery, or from when this service was back where it had been down: what
    providers could not deliver then they send again. An account that never had a delivery is not silent.
    """
    stands = watch.alarms.get(Alarm.SILENT)
    heard = watch.heard_at
    if heard is None:
        return None
    if stands is not None:
        since = _instant(stands["since"])
        if heard <= since:
            return None
        words = f"a verified delivery has come, after {format_duration(heard - since)} without any"
        return AlarmChange(Alarm.SILENT, since, True, words, {"silent_seconds": round((heard - since).total_seconds())})
    start = max(heard, watch.resumed_at) if watch.resumed_at is not None else heard
    if not rhythm.is_silent(start, now, tick):
        return None
    expected = rhythm.expected(start, now)
    rejected = int(watch.unverified.get("rejected", 0))
    words = f"no verified delivery for {format_duration(now - heard)}, in which about {expected:.0f} should have come"
    if rejected:
        words += f"; {rejected} were rejected meanwhile: see receipted rejected list"
    details: Details = {
        "silent_seconds": round((now - heard).total_seconds()),
        "expected_deliveries": round(expected, 1),
        "plausible_deliveries": round(rhythm.threshold(tick) or 0.0, 1),
        "rejected_deliveries": rejected,
    }
    return AlarmChange(Alarm.SILENT, heard, False, words, details)


def unverified_change(watch: PushWatch, rhythm: DeliveryRhythm, now: datetime) -> AlarmChange | None:
    """Return the beginning or end of the alarm for deliveries that all fail to verify.

    Garbage can be sent to a public URL, so that numbers alone say nothing. What counts are rejected deliveries
    that name payments which are known here, of which several people's are not known to any one stranger, while no
    delivery was verified although some should have been.
    """
    stands = watch.alarms.get(Alarm.UNVERIFIED)
    if stands is not None:
        since = _instant(stands["since"])
        if watch.heard_at is None or watch.heard_at <= since:
            return None
        return AlarmChange(Alarm.UNVERIFIED, since, True, "a delivery has been verified again", {})
    evidence = watch.unverified
    named = len(evidence.get("payments", ()))
    if named < MIN_SUSPECT_PAYMENTS:
        return None
    if watch.heard_at is not None and rhythm.threshold(timedelta(minutes=1)) is not None:
        start = max(watch.heard_at, watch.resumed_at) if watch.resumed_at is not None else watch.heard_at
        if rhythm.expected(start, now) < _MIN_MISSED_DELIVERIES:
            return None
    reasons: Mapping[str, int] = evidence["reasons"]
    most = max(reasons, key=lambda name: (reasons[name], name))
    count = int(evidence["rejected"])
    words = f"{count} deliveries, naming {named} payments of ours, were rejected since one was last verified ({most}); "
    if most.startswith("timestamp"):
        words += "compare this machine's clock with the provider's, then receipted rejected redeem"
    else:
        words += (
            "the provider seems to sign with another key: add it beside the old one, then receipted rejected redeem"
        )
    return AlarmChange(
        Alarm.UNVERIFIED, now, False, words, {"rejected_deliveries": count, "payments": named, "cause": most}
    )


def loss_change(
    watch: PushWatch, rows: Iterable[PushQuality], now: datetime, limit: LossThreshold
) -> AlarmChange | None:
    """Return the beginning or end of the alarm for lost pushes of a kind.

    Begins where more changes are lost than permitted, beyond what chance explains.
    """
    kinds: dict[str, list[PushQuality]] = {}
    for row in rows:
        kinds.setdefault(row.kind, []).append(row)
    shares = {kind: webhook_health.share_of(found, now.date()) for kind, found in kinds.items() if kind}
    known = {kind: share for kind, share in shares.items() if share.loss is not None}
    stands = watch.alarms.get(Alarm.PUSH_LOSS)
    if stands is not None:
        worst = max((share.loss or 0.0 for share in known.values()), default=0.0)
        if worst >= _CLOSING_SHARE * limit.threshold:
            return None
        since = _instant(stands["since"])
        words = f"pushes report {1 - worst:.0%} of the changes again"
        return AlarmChange(Alarm.PUSH_LOSS, since, True, words, {"loss": round(worst, 3)})
    for kind, share in sorted(known.items(), key=lambda item: -(item[1].loss or 0.0)):
        is_enough = share.changes >= limit.samples
        if is_enough and wilson_lower_bound(share.lost, share.changes) > limit.threshold:
            words = (
                f"of {share.samples} changes of a {kind}, {share.loss:.0%} were found by polling and no push reported "
                "them (recent days weigh more): look whether our URL is registered, and at the provider's own log"
            )
            details: Details = {"kind": kind, "loss": round(share.loss or 0.0, 3), "changes": share.samples}
            return AlarmChange(Alarm.PUSH_LOSS, now, False, words, details)
    return None


def unreachable_change(watch: PushWatch, breaker: Breaker, now: datetime, after: timedelta) -> AlarmChange | None:
    """Return the beginning or end of the alarm for an account unreachable for `after`.

    A breaker that is open and that no call has probed until then says nothing: there was nothing to ask.
    """
    stands = watch.alarms.get(Alarm.UNREACHABLE)
    if stands is not None:
        since = _instant(stands["since"])
        if breaker.broken_at is not None and breaker.broken_at <= since:
            return None
        words = f"a question was answered again, about {format_duration(now - since)} after the first that was not"
        return AlarmChange(
            Alarm.UNREACHABLE, since, True, words, {"away_seconds": round((now - since).total_seconds())}
        )
    since_at, again_at = breaker.broken_at, breaker.probe_at
    if since_at is None or again_at is None or min(now, again_at) < since_at + after:
        return None
    words = f"no question was answered for {format_duration(now - since_at)}, {breaker.failures} outages in a row"
    details: Details = {"away_seconds": round((now - since_at).total_seconds()), "outages": breaker.failures}
    return AlarmChange(Alarm.UNREACHABLE, since_at, False, words, details)


def dead_letter_changes(watch: PushWatch, dead: Dead, now: datetime) -> Iterator[AlarmChange]:
    """Yield the beginning or the ends of the alarm for dead messages and effects.

    A sink that dies later begins another alarm. What stands names the sinks that are dead: one that is mended and dies
    again begins another as well. All of them end when nothing is dead any more.
    """
    stands = watch.alarms.get(Alarm.DEAD_LETTERS)
    is_any = bool(dead.messages or dead.effects)
    if not is_any:
        for since in [*stands.get("earlier", ()), stands["since"]] if stands is not None else ():
            reason = "no message and no effect of a payment is dead any more"
            yield AlarmChange(Alarm.DEAD_LETTERS, _instant(since), True, reason, {})
        return
    if stands is not None:
        known = {*str(stands["details"].get("sinks") or "").split(", ")} & {*dead.sinks}
        if not {*dead.sinks} - known:
            details = stands["details"] | {"sinks": ", ".join(sink for sink in dead.sinks if sink in known)}
            watch.alarms = watch.alarms | {Alarm.DEAD_LETTERS.value: stands | {"details": details}}
            return
    words = f"messages that are dead: {dead.messages}, effects: {dead.effects}; mend the cause, then replay or redrive"
    figures: Details = {"messages": dead.messages, "effects": dead.effects, "sinks": ", ".join(dead.sinks)}
    yield AlarmChange(Alarm.DEAD_LETTERS, now, False, words, figures)


def wilson_lower_bound(lost: float, changes: float) -> float:
    """Return Wilson's lower bound, 99 in 100, of the share of lost changes."""
    if changes <= 0:
        return 0.0
    share, spread = lost / changes, _Z_99**2 / changes
    middle = share + spread / 2
    width = _Z_99 * math.sqrt(share * (1 - share) / changes + spread / (4 * changes))
    return max(0.0, (middle - width) / (1 + spread))


def set_alarm(watch: PushWatch, change: AlarmChange, now: datetime) -> None:
    """Set or clear the alarm on the watch."""
    alarms: dict[str, Any] = {name: kept for name, kept in watch.alarms.items() if name != change.alarm.value}
    if not change.is_over:
        before = watch.alarms.get(change.alarm.value)
        earlier = [] if before is None else [*before.get("earlier", ()), before["since"]]
        alarms[change.alarm.value] = {
            "since": change.since.astimezone(UTC).isoformat(),
            "noticed": now.astimezone(UTC).isoformat(),
            "reason": change.reason,
            "details": change.details,
            **({"earlier": earlier} if earlier else {}),
        }
    watch.alarms = alarms


def alarm_message(
    account: str,
    alarm: Alarm,
    *,
    since: datetime,
    is_over: bool,
    reason: str,
    details: Details,
    now: datetime,
) -> InboxMessage:
    """Build the inbox message that sends an alarm to every sink, once.

    Account, alarm, `since` and `is_over` identify it. Record it in the unit of work that keeps what it follows from.
    Recorded again, it is a duplicate, or, with other words or figures, a variant that the worker parks; nothing more
    is sent in either case. `details` are figures for people and machines; neither they nor the reason may hold a
    payload or a secret.
    """
    began = since.astimezone(UTC).isoformat()
    statement = own_statements.AccountAlarm(alarm.value, began, is_over, reason, details)
    return inbox.new_message(
        account=account,
        source=Source.POLLER.value,
        delivery_key=f"alarm:{alarm.value}:{began}:{'over' if is_over else 'begun'}",
        body=own_statements.encode(statement),
        headers=(("content-type", own_statements.CONTENT_TYPE),),
        received_at=now,
    )


def format_duration(span: timedelta) -> str:
    """Format a duration for people, such as "3 h 20 min"."""
    seconds = round(span.total_seconds())
    days, hours, minutes = seconds // 86_400, seconds % 86_400 // 3600, seconds % 3600 // 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
