"""When an account's push is alarming, and when that is over. The rules are pure; each alarm is told once."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from poller.silence import Rhythm
from statemachine import statements
from statemachine.phases import Alarm, Source
from storage import inbox, webhook_health
from storage.counts import Dead
from storage.rate_limits import Breaker
from storage.tables import InboxMessage
from storage.tables_support import PushQuality, PushWatch

#: So many rejected deliveries that name as many payments of ours, and none verified since, are no stranger's: ids of
#: payments are known to the provider, to us, and each to its payer.
SUSPECTS: Final = 5
#: ... and only where verified ones should have come meanwhile: nine silences in ten are shorter than so many.
_MISSED: Final = math.log(10)

#: One-sided, 99 in 100: what is above the threshold by less than chance explains does not alarm.
_Z: Final = 2.33
#: An alarm of loss is over when the loss is below so much of the threshold, so that it does not flap.
_OVER: Final = 0.75

Details = dict[str, float | int | str | None]


@dataclass(frozen=True, slots=True)
class Change:
    """An alarm begins, or is over."""

    alarm: Alarm
    since: datetime
    is_over: bool
    reason: str
    details: Details


@dataclass(frozen=True, slots=True)
class Loss:
    """What is alarming about loss."""

    threshold: float = 0.2
    samples: int = 20  #: changes, recent ones counting whole, below which nothing is said


def silence(watch: PushWatch, rhythm: Rhythm, now: datetime, tick: timedelta) -> Change | None:
    """Whether no verified delivery came for longer than is plausible, or one has come since that began.

    Silence is counted from the last delivery, or from when we were back where we had been away: what providers could
    not deliver then they send again. An account that never had a delivery is not silent.
    """
    stands = watch.alarms.get(Alarm.SILENT)
    heard = watch.heard_at
    if heard is None:
        return None
    if stands is not None:
        since = _instant(stands["since"])
        if heard <= since:
            return None
        words = f"a verified delivery has come, after {spoken(heard - since)} without any"
        return Change(Alarm.SILENT, since, True, words, {"silent_seconds": round((heard - since).total_seconds())})
    start = max(heard, watch.resumed_at) if watch.resumed_at is not None else heard
    if not rhythm.is_silent(start, now, tick):
        return None
    expected = rhythm.expected(start, now)
    rejected = int(watch.unverified.get("rejected", 0))
    words = f"no verified delivery for {spoken(now - heard)}, in which about {expected:.0f} should have come"
    if rejected:
        words += f"; {rejected} were rejected meanwhile: see receipted rejected list"
    details: Details = {
        "silent_seconds": round((now - heard).total_seconds()),
        "expected_deliveries": round(expected, 1),
        "plausible_deliveries": round(rhythm.threshold(tick) or 0.0, 1),
        "rejected_deliveries": rejected,
    }
    return Change(Alarm.SILENT, heard, False, words, details)


def unverified(watch: PushWatch, rhythm: Rhythm, now: datetime) -> Change | None:
    """Whether every delivery fails verification, or one has been verified since that began.

    Anybody can send garbage to a public URL, so that numbers alone say nothing. What counts are rejected deliveries
    that name payments which are known here, of which several people's are not known to any one stranger, while no
    delivery was verified although some should have been.
    """
    stands = watch.alarms.get(Alarm.UNVERIFIED)
    if stands is not None:
        since = _instant(stands["since"])
        if watch.heard_at is None or watch.heard_at <= since:
            return None
        return Change(Alarm.UNVERIFIED, since, True, "a delivery has been verified again", {})
    evidence = watch.unverified
    named = len(evidence.get("payments", ()))
    if named < SUSPECTS:
        return None
    if watch.heard_at is not None and rhythm.threshold(timedelta(minutes=1)) is not None:
        start = max(watch.heard_at, watch.resumed_at) if watch.resumed_at is not None else watch.heard_at
        if rhythm.expected(start, now) < _MISSED:
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
    return Change(Alarm.UNVERIFIED, now, False, words, {"rejected_deliveries": count, "payments": named, "cause": most})


def loss(watch: PushWatch, rows: Iterable[PushQuality], now: datetime, limit: Loss) -> Change | None:
    """Whether more of a kind's changes are lost than permitted, beyond what chance explains, or that has passed."""
    kinds: dict[str, list[PushQuality]] = {}
    for row in rows:
        kinds.setdefault(row.kind, []).append(row)
    shares = {kind: webhook_health.share_of(found, now.date()) for kind, found in kinds.items() if kind}
    known = {kind: share for kind, share in shares.items() if share.loss is not None}
    stands = watch.alarms.get(Alarm.PUSH_LOSS)
    if stands is not None:
        worst = max((share.loss or 0.0 for share in known.values()), default=0.0)
        if worst >= _OVER * limit.threshold:
            return None
        since = _instant(stands["since"])
        words = f"pushes tell of {1 - worst:.0%} of the changes again"
        return Change(Alarm.PUSH_LOSS, since, True, words, {"loss": round(worst, 3)})
    for kind, share in sorted(known.items(), key=lambda item: -(item[1].loss or 0.0)):
        is_enough = share.changes >= limit.samples
        if is_enough and at_least(share.lost, share.changes) > limit.threshold:
            words = (
                f"of {share.samples} changes of a {kind}, {share.loss:.0%} were found by asking and no push told of "
                "them (recent days weigh more): look whether our URL is registered, and at the provider's own log"
            )
            details: Details = {"kind": kind, "loss": round(share.loss or 0.0, 3), "changes": share.samples}
            return Change(Alarm.PUSH_LOSS, now, False, words, details)
    return None


def unreachable(watch: PushWatch, breaker: Breaker, now: datetime, after: timedelta) -> Change | None:
    """Whether questions have met outages for longer than `after`, or one was answered since that began.

    A breaker that is open and that nobody has tried again until then says nothing: there was nothing to ask.
    """
    stands = watch.alarms.get(Alarm.UNREACHABLE)
    if stands is not None:
        since = _instant(stands["since"])
        if breaker.broken_at is not None and breaker.broken_at <= since:
            return None
        words = f"a question was answered again, about {spoken(now - since)} after the first that was not"
        return Change(Alarm.UNREACHABLE, since, True, words, {"away_seconds": round((now - since).total_seconds())})
    since_at, again_at = breaker.broken_at, breaker.probe_at
    if since_at is None or again_at is None or min(now, again_at) < since_at + after:
        return None
    words = f"no question was answered for {spoken(now - since_at)}, {breaker.failures} outages in a row"
    details: Details = {"away_seconds": round((now - since_at).total_seconds()), "outages": breaker.failures}
    return Change(Alarm.UNREACHABLE, since_at, False, words, details)


def dead_letters(watch: PushWatch, dead: Dead, now: datetime) -> Change | None:
    """Whether something was given up, or nothing that was given up is left."""
    stands = watch.alarms.get(Alarm.DEAD_LETTERS)
    is_any = bool(dead.messages or dead.effects)
    if is_any is (stands is not None):
        return None
    if stands is not None:
        since = _instant(stands["since"])
        return Change(Alarm.DEAD_LETTERS, since, True, "no message and no effect of a payment is dead any more", {})
    words = f"messages that are dead: {dead.messages}, effects: {dead.effects}; mend the cause, then replay or redrive"
    figures: Details = {"messages": dead.messages, "effects": dead.effects, "sinks": ", ".join(dead.sinks)}
    return Change(Alarm.DEAD_LETTERS, now, False, words, figures)


def at_least(lost: float, changes: float) -> float:
    """The smallest share that is plausible for so many lost of so many changes: Wilson's lower bound, 99 in 100."""
    if changes <= 0:
        return 0.0
    share, spread = lost / changes, _Z**2 / changes
    middle = share + spread / 2
    width = _Z * math.sqrt(share * (1 - share) / changes + spread / (4 * changes))
    return max(0.0, (middle - width) / (1 + spread))


def stand(watch: PushWatch, change: Change, now: datetime) -> None:
    """The watch has the alarm from now on, or has it no more."""
    alarms: dict[str, Any] = {name: told for name, told in watch.alarms.items() if name != change.alarm.value}
    if not change.is_over:
        alarms[change.alarm.value] = {
            "since": change.since.astimezone(UTC).isoformat(),
            "noticed": now.astimezone(UTC).isoformat(),
            "reason": change.reason,
            "details": change.details,
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


def spoken(span: timedelta) -> str:
    """A span as a person says it, such as "3 h 20 min"."""
    seconds = round(span.total_seconds())
    days, hours, minutes = seconds // 86_400, seconds % 86_400 // 3600, seconds % 3600 // 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
