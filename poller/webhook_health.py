"""Measure webhook delivery against polled changes, and raise accounts' alarms."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal

import structlog

from poller import alarms
from poller.alarms import AlarmChange, LossThreshold, alarm_message
from poller.schedule import POLL_SOURCES, PUSH_SOURCES
from poller.silence import DeliveryRhythm
from providers.contract import Provider, Statement
from statemachine import histograms
from statemachine.lifecycle import Lifecycle
from statemachine.phases import Alarm, Source
from storage import counts, inbox, rate_limits, webhook_health
from storage import transitions as storage_transitions
from storage.counts import Dead
from storage.database import Database, Unit
from storage.tables import InboxMessage, RejectedDelivery, Transition
from storage.tables_support import PushQuality, PushWatch
from storage.webhook_health import Rejection

log = structlog.get_logger()

_LEASE_DURATION: Final = timedelta(minutes=5)
#: Messages, and transitions, that one step reads at most.
_BATCH_SIZE: Final = 1000
#: Rejected deliveries that one step counts at most, and those among them whose bodies it reads.
_MAX_REJECTED: Final = 5000
_MAX_REJECTED_READ: Final = 50
#: Names that one rejected delivery may give.
_MAX_NAMES: Final = 20

#: A gap in measuring of this many intervals means that the service was down.
_PAUSE_INTERVALS: Final = 3

_MIN_GRACE: Final = timedelta(minutes=15)
_MAX_GRACE: Final = timedelta(hours=6)
_LOOK_BACK: Final = timedelta(days=30)

Verdict = Literal["pushed", "late", "lost"]


@dataclass(frozen=True, slots=True)
class PushReading:
    """Parsed content of one webhook or callback."""

    id: str
    payment_id: str | None
    kind: str  #: lifecycle kind; "" where unknown
    state: str  #: of the lifecycle; "" where it reported none
    is_hint: bool  #: it reported that the payment changed, and not how
    is_variant: bool  #: other content under a known identity: it reports nothing
    received_at: datetime
    changed_at: datetime | None  #: the provider's time of the change
    signed_at: datetime | None


class QualityTally:
    """New push figures of one account, to be added to the stored ones."""

    def __init__(self, account: str) -> None:
        self._account = account
        self.rows: dict[tuple[str, str, date], PushQuality] = {}

    def of(self, kind: str, event: str, at: datetime) -> PushQuality:
        """Return the figures of a kind and event on a UTC day; "" and "" for the account."""
        day = at.astimezone(UTC).date()
        found = self.rows.get((kind, event, day))
        if found is None:
            found = PushQuality(account=self._account, kind=kind, event=event, day=day)
            self.rows[kind, event, day] = found
        return found


def read_push(provider: Provider, message: InboxMessage, kind: str | None) -> PushReading:
    """Parse a push about a payment, whose kind is given where known. Total.

    Of several observations in one push the first counts; no provider sends several.
    """
    reading = provider.parse(
        Statement(Source(message.source), message.body, message.received_at, kind=message.kind, ref=message.ref)
    )
    reported = reading.observations[0] if reading.observations else None
    found = kind or (reported.kind if reported is not None else None) or ""
    lifecycle = provider.lifecycles.get(found)
    status = reported.status if reported is not None else None
    is_known = lifecycle is not None and status is not None and lifecycle.knows(status)
    return PushReading(
        id=message.id,
        payment_id=message.payment_id,
        kind=found if lifecycle is not None else "",
        state=status if is_known and status is not None else "",
        is_hint=bool(reading.hints) or (reported is not None and status is None),
        is_variant=message.variant_of is not None,
        received_at=_pushed_at(message),
        changed_at=reported.as_of if reported is not None else None,
        signed_at=message.provider_time,
    )


def _pushed_at(message: InboxMessage) -> datetime:
    """Return when the push came: that of an event of a journal, after it was read."""
    if message.source == Source.JOURNAL and message.last_redelivered_at is not None:
        return message.last_redelivered_at
    return message.received_at


def count_pushes(
    tally: QualityTally,
    new: Iterable[PushReading],
    of_payment: Mapping[str, Sequence[PushReading]],
    lifecycles: Mapping[str, Lifecycle],
) -> None:
    """Count each new push once, by what had been pushed about its payment before.

    A duplicate repeats what was reported; a reordered push reports a state that an earlier push had passed.
    """
    for push in new:
        figures = tally.of(push.kind, push.state, push.received_at)
        figures.deliveries += 1
        if push.signed_at is not None:
            histograms.add_duration(tally.of("", "", push.received_at).skews, push.signed_at - push.received_at)
        if push.is_variant:
            figures.duplicates += 1
            continue
        if not push.state:
            continue
        earlier = [p for p in of_payment.get(push.payment_id or "", ()) if p.id < push.id and p.state]
        if _is_repeat(push, earlier, lifecycles[push.kind]):
            figures.duplicates += 1
            continue
        if _is_overtaken(push, earlier, lifecycles[push.kind]):
            figures.reordered += 1
        if push.changed_at is not None:
            histograms.add_duration(figures.lags, push.received_at - push.changed_at)


def count_redeliveries(tally: QualityTally, push: PushReading, message: InboxMessage, since: datetime | None) -> None:
    """Count the redeliveries of the same bytes since that instant as duplicates.

    Exact for a message that is younger than `since`. Of an older one it is known that it came again, and not how
    often, and it counts once: a lower bound, and exact while nothing comes again twice between two measurements.
    """
    at = message.last_redelivered_at
    if at is None:
        return
    times = message.redeliveries if since is None or message.received_at > since else 1
    figures = tally.of(push.kind, push.state, at)
    figures.deliveries += times
    figures.duplicates += times


def count_changes(
    tally: QualityTally,
    judged: Iterable[tuple[Transition, str]],
    chains: Mapping[str, Sequence[Transition]],
    of_payment: Mapping[str, Sequence[PushReading]],
    lifecycles: Mapping[str, Lifecycle],
    grace: timedelta,
) -> None:
    """Count each transition whose grace is over once as pushed, late or lost."""
    for transition, kind in judged:
        if transition.from_state is None or transition.source not in PUSH_SOURCES | POLL_SOURCES:
            continue
        pushes = of_payment.get(transition.payment_id, ())
        chain = chains.get(transition.payment_id, ())
        lifecycle = lifecycles.get(kind)
        passed = () if lifecycle is None or transition.forced else certainly_passed(lifecycle, transition)
        for state in passed:
            _count(tally, kind, state, transition, verdict(transition, state, chain, pushes, grace))
        if transition.source in PUSH_SOURCES:
            _count(tally, kind, transition.to_state, transition, "pushed")
        else:
            reported = verdict(transition, transition.to_state, chain, pushes, grace)
            _count(tally, kind, transition.to_state, transition, reported)


def verdict(
    found: Transition, state: str, chain: Sequence[Transition], pushes: Sequence[PushReading], grace: timedelta
) -> Verdict:
    """Judge whether a push reported the state before the transition, late, or never.

    A hint reports what changed after the statement that the payment's state before rests on, and is polled at
    once: what is found a whole grace later it did not report.
    """
    visits = [t.recorded_at for t in chain if t.number < found.number and t.to_state == state]
    before = [t.as_of or t.recorded_at for t in chain if t.number < found.number]
    after_visit, after_change = max(visits, default=None), max(before, default=None)
    reported = [p.received_at for p in pushes if p.state == state and not p.is_variant and _is_after(p, after_visit)]
    hinted = [p for p in pushes if p.is_hint and not p.is_variant and _is_after(p, after_change)]
    reported += [p.received_at for p in hinted if p.received_at >= found.recorded_at - grace]
    first = min(reported, default=None)
    if first is None or first > found.recorded_at + grace:
        return "lost"
    return "pushed" if first <= found.recorded_at else "late"


def certainly_passed(lifecycle: Lifecycle, transition: Transition) -> list[str]:
    """Return the skipped states that lie on every path to the transition's state."""
    return [
        state
        for state in transition.via
        if not _reaches(lifecycle, transition.from_state, transition.to_state, without=state)
    ]


def _count(tally: QualityTally, kind: str, state: str, transition: Transition, reported: Verdict) -> None:
    figures = tally.of(kind, state, transition.recorded_at)
    setattr(figures, reported, getattr(figures, reported) + 1)


def _is_after(push: PushReading, at: datetime | None) -> bool:
    return at is None or push.received_at > at


def _is_repeat(push: PushReading, earlier: Sequence[PushReading], lifecycle: Lifecycle) -> bool:
    same = [p for p in earlier if p.state == push.state and not p.is_variant]
    if not same:
        return False
    if not _reaches(lifecycle, push.state, push.state):
        return True  # entered once only
    if push.changed_at is not None and any(p.changed_at == push.changed_at for p in same):
        return True
    return earlier[-1].state == push.state


def _is_overtaken(push: PushReading, earlier: Sequence[PushReading], lifecycle: Lifecycle) -> bool:
    for other in earlier:
        if other.is_variant or other.state == push.state:
            continue
        is_ahead = _reaches(lifecycle, push.state, other.state)
        if is_ahead and not _reaches(lifecycle, other.state, push.state):
            return True
        times = (push.changed_at, other.changed_at)
        if is_ahead and times[0] is not None and times[1] is not None and times[0] < times[1]:
            return True
    return False


def _reaches(lifecycle: Lifecycle, start: str | None, end: str, *, without: str | None = None) -> bool:
    """Return whether moves lead from one state to the other without entering a third."""
    ways = lifecycle.initial if start is None else lifecycle.moves.get(start, ())
    snapshot: set[str] = set()
    waiting = [state for state in ways if state != without]
    while waiting:
        state = waiting.pop()
        if state == end:
            return True
        if state not in snapshot:
            snapshot.add(state)
            waiting += [following for following in lifecycle.moves.get(state, ()) if following != without]
    return False


@dataclass(frozen=True, slots=True)
class PushMonitorSettings:
    """Interval, grace and thresholds for measuring pushes."""

    every: timedelta = timedelta(minutes=1)
    grace: timedelta | None = None  #: None: twice the account's own p99 lag, from 15 minutes to 6 hours
    loss: LossThreshold = field(default_factory=LossThreshold)
    unreachable: timedelta = timedelta(minutes=10)  #: how long calls may meet outages before an alarm


@dataclass(slots=True)
class _Snapshot:
    """Rows of an account that one step has read, in one snapshot."""

    messages: list[InboxMessage]  #: pushes to be measured, in order of arrival
    message_id: str | None  #: the last message read
    transitions: list[tuple[Transition, str]]
    transition_id: str | None
    rejected: list[Rejection]
    suspects: list[tuple[RejectedDelivery, str]]  #: rejections with the known payment that each names
    redelivered: list[InboxMessage]
    redelivered_at: datetime
    about: dict[str, list[InboxMessage]]  #: every push about the payments concerned
    kinds: dict[str, str]
    chains: dict[str, list[Transition]]
    heard_at: datetime | None
    dead: Dead
    has_more: bool
    grace: timedelta


class PushMonitor:
    """Compare pushed with polled changes. Safe in any number of processes."""

    def __init__(
        self,
        database: Database,
        providers: Mapping[str, Provider],
        clock: Callable[[], datetime],
        settings: PushMonitorSettings | None = None,
    ) -> None:
        self._database = database
        self._providers = providers
        self._clock = clock
        self._settings = settings or PushMonitorSettings()

    def step(self) -> int:
        """Measure a batch of each account that is due; return how many have more to do.

        An account whose alarm changed counts too. Raises what an account met after the others were measured:
        StorageUnavailable, LeaseLost where a step took so long that another process went on, or a bug. Nothing of that
        account's step was kept.
        """
        more, faults = 0, list[Exception]()
        for account in self._providers:
            try:
                more += self.measure(account)
            except Exception as fault:  # noqa: BLE001 - raised below
                faults.append(fault)
        if faults:
            raise faults[0]
        return more

    def measure(self, account: str) -> bool:
        """Measure a batch of one account if due; return True for more work or an alarm."""
        now = self._clock()
        with self._database.write() as unit:
            watch = webhook_health.claim(unit, account, now, _LEASE_DURATION)
        if watch is None:
            return False
        with self._database.read() as unit:
            snapshot = self._read(unit, watch, now)
        tally = self._count_quality(account, watch, snapshot)
        rhythm = self._learn_rhythm(watch, snapshot, now)
        _update_unverified(watch, snapshot)
        _advance(watch, snapshot, now, self._settings.every)
        with self._database.write() as unit:
            webhook_health.add(unit, account, tally.rows)
            changes = [] if snapshot.has_more else self._alarm_changes(unit, watch, rhythm, snapshot.dead, now)
            for change in changes:
                alarms.set_alarm(watch, change, now)
                inbox.record(unit, [_message(account, change, now)])
            webhook_health.keep(unit, watch)
        for change in changes:
            _log_alarm(account, change)
        return snapshot.has_more or bool(changes)

    def _read(self, unit: Unit, watch: PushWatch, now: datetime) -> _Snapshot:
        account = watch.account
        grace = self._grace(unit, account, now)
        found, passed, is_end = webhook_health.pushes_after(unit, account, watch.message_id, now, _BATCH_SIZE)
        settled = [message for message in found if passed is not None and message.id <= passed]
        judged, transition_id, is_last = webhook_health.transitions_after(
            unit, account, watch.transition_id, now - grace, _BATCH_SIZE
        )
        payments = {m.payment_id for m in settled if m.payment_id is not None}
        payments |= {transition.payment_id for transition, _ in judged}
        ids = sorted(payments)
        about: dict[str, list[InboxMessage]] = {}
        for message in webhook_health.pushes_about(unit, ids):
            about.setdefault(message.payment_id or "", []).append(message)
        latest = now - webhook_health.SETTLES
        again, redelivered_at = webhook_health.redelivered(unit, account, watch.redelivered_at, latest, _BATCH_SIZE)
        is_all_again = redelivered_at == latest
        rejected = webhook_health.rejected_after(unit, account, watch.rejected_id, _MAX_REJECTED)
        heard = [watch.heard_at, webhook_health.last_redelivered_at(unit, account), *(m.received_at for m in found)]
        if is_end:
            heard.append(webhook_health.last_push_at(unit, account, passed))
        heard_at = max((at for at in heard if at is not None), default=None)
        return _Snapshot(
            messages=settled,
            message_id=passed,
            transitions=judged,
            transition_id=transition_id,
            rejected=rejected,
            suspects=self._suspects(unit, account, rejected, heard_at),
            redelivered=again,
            redelivered_at=redelivered_at,
            about=about,
            kinds=webhook_health.kinds_of(unit, sorted({*ids, *(m.payment_id for m in again if m.payment_id)})),
            chains=storage_transitions.of_payments(unit, sorted({transition.payment_id for transition, _ in judged})),
            heard_at=heard_at,
            dead=counts.dead_of_account(unit, account),
            has_more=not (is_end and is_last and is_all_again and len(rejected) < _MAX_REJECTED),
            grace=grace,
        )

    def _grace(self, unit: Unit, account: str, now: datetime) -> timedelta:
        """Return how long a push may take before its change counts as lost.

        Twice the p99 of what pushes did take: of those that come at all, fewer than one in a hundred is called lost.
        That p99 is of every push, late ones too, so that the grace cannot hide from itself what it calls lost.
        """
        if self._settings.grace is not None:
            return self._settings.grace
        rows = webhook_health.between(unit, account, (now - _LOOK_BACK).date(), now.date())
        lags = histograms.merge_bins((row.lags, webhook_health.weight(row.day, now.date())) for row in rows)
        usual = histograms.bin_quantile(lags, 0.99) or timedelta(0)
        return min(max(2 * usual, _MIN_GRACE), _MAX_GRACE)

    def _suspects(
        self, unit: Unit, account: str, rejected: Sequence[Rejection], heard_at: datetime | None
    ) -> list[tuple[RejectedDelivery, str]]:
        """Return the newest unverified rejections that name a payment.

        Each with one such payment. A body that was not verified is parsed like one that was, which is safe for any
        bytes, and believed in nothing.
        """
        provider, found = self._providers[account], list[tuple[RejectedDelivery, str]]()
        since = [r.id for r in rejected if heard_at is None or r.received_at > heard_at]
        for delivery in webhook_health.rejected_bodies(unit, since[-_MAX_REJECTED_READ:]):
            if delivery.about is not None:
                found.append((delivery, delivery.about))  # only our own token leads there
                continue
            statement = Statement(Source.WEBHOOK, delivery.body, delivery.received_at, kind=delivery.kind)
            reading = provider.parse(statement)
            names = [n for o in reading.observations for n in (o.provider_ref, o.reference) if n is not None]
            known = webhook_health.known_by(
                unit, account, list(provider.lifecycles), [*names, *reading.hints][:_MAX_NAMES]
            )
            found += [(delivery, payment_id) for payment_id in sorted(known)[:1]]
        return found

    def _count_quality(self, account: str, watch: PushWatch, snapshot: _Snapshot) -> QualityTally:
        provider, tally = self._providers[account], QualityTally(account)

        def reported(message: InboxMessage) -> PushReading:
            return read_push(provider, message, snapshot.kinds.get(message.payment_id or ""))

        of_payment = {payment: [reported(message) for message in found] for payment, found in snapshot.about.items()}
        lifecycles = provider.lifecycles
        count_pushes(tally, [reported(message) for message in snapshot.messages], of_payment, lifecycles)
        for message in snapshot.redelivered:
            count_redeliveries(tally, reported(message), message, watch.redelivered_at)
        count_changes(tally, snapshot.transitions, snapshot.chains, of_payment, lifecycles, snapshot.grace)
        for delivery in snapshot.rejected:
            tally.of("", "", delivery.received_at).rejected += 1
        return tally

    def _learn_rhythm(self, watch: PushWatch, snapshot: _Snapshot, now: datetime) -> DeliveryRhythm:
        """Learn the rhythm from the new deliveries; a gap in measuring is not silence."""
        rhythm = DeliveryRhythm(watch.rhythm)
        for message in snapshot.messages:
            rhythm.add_delivery(message.received_at)
        if watch.measured_at is not None and now - watch.measured_at > _PAUSE_INTERVALS * self._settings.every:
            watch.resumed_at = now
            rhythm.mark_paused(now)
        watch.rhythm = rhythm.dump()
        return rhythm

    def _alarm_changes(
        self, unit: Unit, watch: PushWatch, rhythm: DeliveryRhythm, dead_letters: Dead, now: datetime
    ) -> list[AlarmChange]:
        rows = webhook_health.between(unit, watch.account, (now - _LOOK_BACK).date(), now.date())
        found = (
            alarms.silence_change(watch, rhythm, now, self._settings.every),
            alarms.unverified_change(watch, rhythm, now),
            alarms.loss_change(watch, rows, now, self._settings.loss),
            alarms.unreachable_change(watch, rate_limits.breaker(unit, watch.account), now, self._settings.unreachable),
            *alarms.dead_letter_changes(watch, dead_letters, now),
        )
        return [change for change in found if change is not None]


def _update_unverified(watch: PushWatch, snapshot: _Snapshot) -> None:
    """Update the evidence that every delivery fails; a verified delivery clears it."""
    evidence: dict[str, Any] = dict(watch.unverified)
    if evidence and snapshot.heard_at is not None and snapshot.heard_at > datetime.fromisoformat(evidence["since"]):
        evidence = {}
    since = [r for r in snapshot.rejected if snapshot.heard_at is None or r.received_at > snapshot.heard_at]
    if since:
        evidence.setdefault("since", min(r.received_at for r in since).isoformat())
        evidence["rejected"] = evidence.get("rejected", 0) + len(since)
    for delivery, payment_id in snapshot.suspects:
        reasons = dict(evidence.get("reasons", {}))
        reasons[delivery.reason] = reasons.get(delivery.reason, 0) + 1
        evidence["reasons"] = reasons
        named = {*evidence.get("payments", ()), payment_id}
        evidence["payments"] = sorted(named)[:_MAX_NAMES]
    watch.unverified = evidence


def _advance(watch: PushWatch, snapshot: _Snapshot, now: datetime, every: timedelta) -> None:
    watch.message_id, watch.transition_id = snapshot.message_id, snapshot.transition_id
    watch.redelivered_at, watch.heard_at = snapshot.redelivered_at, snapshot.heard_at
    if snapshot.rejected:
        watch.rejected_id = snapshot.rejected[-1].id
    watch.measured_at, watch.due_at = now, now if snapshot.has_more else now + every


def _message(account: str, change: AlarmChange, now: datetime) -> InboxMessage:
    return alarm_message(
        account,
        change.alarm,
        since=change.since,
        is_over=change.is_over,
        reason=change.reason,
        details=change.details,
        now=now,
    )


def _log_alarm(account: str, change: AlarmChange) -> None:
    if change.is_over:
        log.info("alarm.closed", account=account, alarm=change.alarm.value, reason=change.reason)
        return
    event = {
        Alarm.SILENT: "account.silent",
        Alarm.PUSH_LOSS: "account.push_lost",
        Alarm.UNVERIFIED: "account.unverified",
        Alarm.UNREACHABLE: "account.unreachable",
        Alarm.DEAD_LETTERS: "account.dead_letters",
    }[change.alarm]
    log.warning(event, account=account, reason=change.reason, **change.details)
