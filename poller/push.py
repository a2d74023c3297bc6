"""Measures what each account's push is worth, and tells its alarms. The loop that calls `step` lives elsewhere.

Reading and comparing happen outside of any write. What they come to, how far they came and the alarms that follow are
kept in one commit, which only the process that holds the account's claim can make: a crash anywhere leaves the
figures as they were, and the next measurement starts from the same place.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from poller import alarms, pushed
from poller.alarms import Change, Loss, alarm_message
from poller.pushed import Push, Tally
from poller.rhythm import Rhythm
from providers.contract import Provider, Statement
from statemachine.phases import Alarm, Source
from storage import counts, histogram, inbox, rate_limits, webhook_health
from storage import transitions as storage_transitions
from storage.counts import Dead
from storage.database import Database, Unit
from storage.tables import InboxMessage, RejectedDelivery, Transition
from storage.tables_support import PushWatch
from storage.webhook_health import Rejection

log = structlog.get_logger()

_LEASE: Final = timedelta(minutes=5)
#: Messages, and transitions, that one step passes over at most.
_BATCH: Final = 1000
#: Rejected deliveries that one step reads at most, and those among them that it looks into.
_REJECTED: Final = 5000
_LOOKED_INTO: Final = 50
#: Names that one rejected delivery may give.
_NAMES: Final = 20

#: Not measuring for so many times as long as it should take means that we were away.
_AWAY: Final = 3

_SHORTEST_GRACE: Final = timedelta(minutes=15)
_LONGEST_GRACE: Final = timedelta(hours=6)
_LOOK_BACK: Final = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class MeterSettings:
    """How push is measured."""

    every: timedelta = timedelta(minutes=1)
    grace: timedelta | None = None  #: None: twice the account's own p99 lag, from 15 minutes to 6 hours
    loss: Loss = field(default_factory=Loss)
    unreachable: timedelta = timedelta(minutes=10)  #: how long questions may meet outages before that alarms


@dataclass(slots=True)
class _Seen:
    """What one step has read of an account, in one snapshot."""

    messages: list[InboxMessage]  #: pushes to be measured, in order of arrival
    message_id: str | None  #: how far that goes
    transitions: list[tuple[Transition, str]]
    transition_id: str | None
    rejected: list[Rejection]
    suspects: list[tuple[RejectedDelivery, str]]  #: rejections with the payment of ours that each names
    redelivered: list[InboxMessage]
    redelivered_at: datetime
    about: dict[str, list[InboxMessage]]  #: every push of the payments that are concerned
    kinds: dict[str, str]
    chains: dict[str, list[Transition]]
    heard_at: datetime | None
    dead: Dead
    has_more: bool
    grace: timedelta


class PushMeter:
    """Compares what was pushed with what was asked. Any number of them may run against one database."""

    def __init__(
        self,
        database: Database,
        providers: Mapping[str, Provider],
        clock: Callable[[], datetime],
        settings: MeterSettings | None = None,
    ) -> None:
        self._database = database
        self._providers = providers
        self._clock = clock
        self._settings = settings or MeterSettings()

    def step(self) -> int:
        """Measure a batch of each account whose time has come; returns of how many there is more to do, or to tell.

        Raises what an account met after the others were measured: StorageUnavailable, LeaseLost where a step took so
        long that somebody else went on, or a bug. Nothing of that account's step was kept.
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
        """Measure a batch of one account if its time has come; whether there is more to do, or an alarm was told."""
        now = self._clock()
        with self._database.write() as unit:
            watch = webhook_health.claim(unit, account, now, _LEASE)
        if watch is None:
            return False
        with self._database.read() as unit:
            seen = self._read(unit, watch, now)
        tally = self._compared(account, watch, seen)
        rhythm = self._learnt(watch, seen, now)
        _weigh_suspects(watch, seen)
        _move_on(watch, seen, now, self._settings.every)
        with self._database.write() as unit:
            webhook_health.add(unit, account, tally.rows)
            changes = [] if seen.has_more else self._alarms(unit, watch, rhythm, seen.dead, now)
            for change in changes:
                alarms.stand(watch, change, now)
                inbox.record(unit, [_message(account, change, now)])
            webhook_health.keep(unit, watch)
        for change in changes:
            _tell(account, change)
        return seen.has_more or bool(changes)

    # -- reading ------------------------------------------------------------------------------------------------

    def _read(self, unit: Unit, watch: PushWatch, now: datetime) -> _Seen:
        account = watch.account
        grace = self._grace(unit, account, now)
        found, passed, is_end = webhook_health.pushes_after(unit, account, watch.message_id, now, _BATCH)
        settled = [message for message in found if passed is not None and message.id <= passed]
        judged, transition_id, is_last = webhook_health.transitions_after(
            unit, account, watch.transition_id, now - grace, _BATCH
        )
        payments = {m.payment_id for m in settled if m.payment_id is not None}
        payments |= {transition.payment_id for transition, _ in judged}
        ids = sorted(payments)
        about: dict[str, list[InboxMessage]] = {}
        for message in webhook_health.pushes_about(unit, ids):
            about.setdefault(message.payment_id or "", []).append(message)
        latest = now - webhook_health.SETTLES
        again, redelivered_at = webhook_health.redelivered(unit, account, watch.redelivered_at, latest, _BATCH)
        is_all_again = redelivered_at == latest
        rejected = webhook_health.rejected_after(unit, account, watch.rejected_id, _REJECTED)
        heard = [watch.heard_at, webhook_health.last_redelivered_at(unit, account), *(m.received_at for m in found)]
        if is_end:
            heard.append(webhook_health.last_push_at(unit, account, passed))
        heard_at = max((at for at in heard if at is not None), default=None)
        return _Seen(
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
            has_more=not (is_end and is_last and is_all_again and len(rejected) < _REJECTED),
            grace=grace,
        )

    def _grace(self, unit: Unit, account: str, now: datetime) -> timedelta:
        """How long a push may take before its change counts as lost.

        Twice the p99 of what pushes did take: of those that come at all, fewer than one in a hundred is called lost.
        That p99 is of every push, late ones too, so that the grace cannot hide from itself what it calls lost.
        """
        if self._settings.grace is not None:
            return self._settings.grace
        rows = webhook_health.between(unit, account, (now - _LOOK_BACK).date(), now.date())
        lags = histogram.merged((row.lags, webhook_health.weight(row.day, now.date())) for row in rows)
        usual = histogram.quantile(lags, 0.99) or timedelta(0)
        return min(max(2 * usual, _SHORTEST_GRACE), _LONGEST_GRACE)

    def _suspects(
        self, unit: Unit, account: str, rejected: Sequence[Rejection], heard_at: datetime | None
    ) -> list[tuple[RejectedDelivery, str]]:
        """The newest rejections since the last verified delivery that name a payment of ours, each with one of them.

        A body that was not verified is read as one that was, which is safe for any bytes, and believed in nothing.
        """
        provider, found = self._providers[account], list[tuple[RejectedDelivery, str]]()
        since = [r.id for r in rejected if heard_at is None or r.received_at > heard_at]
        for delivery in webhook_health.rejected_bodies(unit, since[-_LOOKED_INTO:]):
            if delivery.about is not None:
                found.append((delivery, delivery.about))  # only our own token leads there
                continue
            statement = Statement(Source.WEBHOOK, delivery.body, delivery.received_at, kind=delivery.kind)
            reading = provider.parse(statement)
            names = [n for o in reading.observations for n in (o.provider_ref, o.reference) if n is not None]
            known = webhook_health.known_by(unit, account, list(provider.lifecycles), [*names, *reading.hints][:_NAMES])
            found += [(delivery, payment_id) for payment_id in sorted(known)[:1]]
        return found

    # -- comparing ----------------------------------------------------------------------------------------------

    def _compared(self, account: str, watch: PushWatch, seen: _Seen) -> Tally:
        provider, tally = self._providers[account], Tally(account)

        def told(message: InboxMessage) -> Push:
            return pushed.read(provider, message, seen.kinds.get(message.payment_id or ""))

        of_payment = {payment: [told(message) for message in found] for payment, found in seen.about.items()}
        lifecycles = provider.lifecycles
        pushed.count_pushes(tally, [told(message) for message in seen.messages], of_payment, lifecycles)
        for message in seen.redelivered:
            pushed.count_redeliveries(tally, told(message), message, watch.redelivered_at)
        pushed.count_changes(tally, seen.transitions, seen.chains, of_payment, lifecycles, seen.grace)
        for delivery in seen.rejected:
            tally.of("", "", delivery.received_at).rejected += 1
        return tally

    def _learnt(self, watch: PushWatch, seen: _Seen, now: datetime) -> Rhythm:
        """The rhythm with what came; a time in which nobody measured is one in which nobody may have listened."""
        rhythm = Rhythm(watch.rhythm)
        for message in seen.messages:
            rhythm.heard(message.received_at)
        if watch.measured_at is not None and now - watch.measured_at > _AWAY * self._settings.every:
            watch.resumed_at = now
            rhythm.away(now)
        watch.rhythm = rhythm.dump()
        return rhythm

    def _alarms(self, unit: Unit, watch: PushWatch, rhythm: Rhythm, dead_letters: Dead, now: datetime) -> list[Change]:
        rows = webhook_health.between(unit, watch.account, (now - _LOOK_BACK).date(), now.date())
        found = (
            alarms.silence(watch, rhythm, now, self._settings.every),
            alarms.unverified(watch, rhythm, now),
            alarms.loss(watch, rows, now, self._settings.loss),
            alarms.unreachable(watch, rate_limits.breaker(unit, watch.account), now, self._settings.unreachable),
            alarms.dead_letters(watch, dead_letters, now),
        )
        return [change for change in found if change is not None]


def _weigh_suspects(watch: PushWatch, seen: _Seen) -> None:
    """The evidence that every delivery fails: rejections since the last verified one; it is gone when one comes."""
    evidence: dict[str, Any] = dict(watch.unverified)
    if evidence and seen.heard_at is not None and seen.heard_at > datetime.fromisoformat(evidence["since"]):
        evidence = {}
    since = [r for r in seen.rejected if seen.heard_at is None or r.received_at > seen.heard_at]
    if since:
        evidence.setdefault("since", min(r.received_at for r in since).isoformat())
        evidence["rejected"] = evidence.get("rejected", 0) + len(since)
    for delivery, payment_id in seen.suspects:
        reasons = dict(evidence.get("reasons", {}))
        reasons[delivery.reason] = reasons.get(delivery.reason, 0) + 1
        evidence["reasons"] = reasons
        named = {*evidence.get("payments", ()), payment_id}
        evidence["payments"] = sorted(named)[:_NAMES]
    watch.unverified = evidence


def _move_on(watch: PushWatch, seen: _Seen, now: datetime, every: timedelta) -> None:
    watch.message_id, watch.transition_id = seen.message_id, seen.transition_id
    watch.redelivered_at, watch.heard_at = seen.redelivered_at, seen.heard_at
    if seen.rejected:
        watch.rejected_id = seen.rejected[-1].id
    watch.measured_at, watch.due_at = now, now if seen.has_more else now + every


def _message(account: str, change: Change, now: datetime) -> InboxMessage:
    return alarm_message(
        account,
        change.alarm,
        since=change.since,
        is_over=change.is_over,
        reason=change.reason,
        details=change.details,
        now=now,
    )


def _tell(account: str, change: Change) -> None:
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
