"""Status of one account: asking, keys, push, reconciliations, quarantine."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final

from poller.alarms import format_duration
from service.accounts import ConfiguredAccount, VerifyingKey
from service.overview import alarms_of
from storage import counts as storage_counts
from storage import hints, journals, poll_plans, quarantine, reconciliations, webhook_health
from storage.counts import PollingCounts
from storage.database import Unit
from storage.journals import JournalState
from storage.rate_limits import MAX_DELAY
from storage.tables_support import PollPlan, Reconciliation
from storage.webhook_health import AccountFigures

#: Days of push that an account's page shows.
_PUSH_DAYS: Final = 30

#: Of its reconciliations, the newest.
_RUN_LIMIT: Final = 8

#: A key that ends so soon is to be rotated now.
_KEY_END_NOTICE: Final = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """One key that verifies deliveries: its standing and its recent use."""

    key: VerifyingKey
    standing: str  #: in a word
    tone: str
    verified: int  #: of the newest messages
    last_at: datetime | None


@dataclass(frozen=True, slots=True)
class PushDay:
    """Push of one day: counts of the events that are pushed at all."""

    day: date
    pushed: int
    late: int
    lost: int
    deliveries: int
    duplicates: int
    rejected: int


def account_status(unit: Unit, account: ConfiguredAccount, now: datetime) -> dict[str, Any]:
    """Read everything that is shown of one account as it stands."""
    today, name = now.date(), account.name
    found = webhook_health.figures(unit, name, today - timedelta(days=_PUSH_DAYS - 1), today)
    measured = found[0] if found else AccountFigures(name, None, None, 0, 0, None)
    used = storage_counts.keys_used(unit, name)
    heard = [measured.heard_at, *(at for _, at in used.values())]
    asking = storage_counts.polling_counts(unit, name, now)
    plan = poll_plans.plans(unit).get(name)
    journal = journals.states(unit).get(name)
    rejected = {reason: count for (of, reason), count in sorted(quarantine.count_by_reason(unit).items()) if of == name}
    return {
        "alarms": alarms_of({name: found[0].alarms}) if found else [],
        "push": measured,
        "days": _days(unit, name, today),
        "asking": asking,
        "why": [
            *_why(asking, plan, account, now),
            *_unknown(hints.waiting(unit, name)),
            *_logged(journal, journals.late(unit, name), now),
        ],
        "journal": journal,
        "plan": plan,
        "per_minute": account.budget[0] * 60 / account.budget[1] if account.budget is not None else None,
        "keys": _keys(account, used, now),
        "heard_at": max((at for at in heard if at is not None), default=None),
        "reconciliations": [(run, _drift(run)) for run in reconciliations.find(unit, account=name, limit=_RUN_LIMIT)],
        "rejected": rejected,
    }


def _days(unit: Unit, name: str, today: date) -> list[PushDay]:
    """Count push by day, the oldest first, days without anything too."""
    since = today - timedelta(days=_PUSH_DAYS - 1)
    rows = webhook_health.between(unit, name, since, today)
    pushed = webhook_health.pushed_events(rows)
    found = []
    for at in range(_PUSH_DAYS):
        day = since + timedelta(days=at)
        of_day = [row for row in rows if row.day == day]
        judged = [row for row in of_day if (row.kind, row.event) in pushed]
        counts = [sum(getattr(row, what) for row in judged) for what in ("pushed", "late", "lost")]
        others = [sum(getattr(row, what) for row in of_day) for what in ("deliveries", "duplicates", "rejected")]
        found.append(PushDay(day, *counts, *others))
    return found


def _keys(account: ConfiguredAccount, used: Mapping[str, tuple[int, datetime]], now: datetime) -> list[KeyStatus]:
    """List configured keys, then used ones that the settings have no more."""
    lines = []
    for key in account.keys:
        standing, tone = _standing(key, now)
        lines.append(KeyStatus(key, standing, tone, *used.get(key.id, (0, None))))
    known = {key.id for key in account.keys}
    gone = (VerifyingKey(key_id, None, None) for key_id in sorted(set(used) - known))
    return [*lines, *(KeyStatus(key, "not in the settings", "quiet", *used[key.id]) for key in gone)]


def _standing(key: VerifyingKey, now: datetime) -> tuple[str, str]:
    if key.not_before is not None and now < key.not_before:
        return "not yet valid", "quiet"
    if key.not_after is not None and now >= key.not_after:
        return "ended", "bad"
    if key.not_after is not None and key.not_after - now < _KEY_END_NOTICE:
        return "ends soon", "warn"
    return "verifies", "ok"


def _why(
    asking: PollingCounts, plan: PollPlan | None, account: ConfiguredAccount, now: datetime
) -> list[tuple[str, str]]:
    """Say how the account is asked and why, each sentence with its tone."""
    budget = asking.budget
    told = []
    if budget is not None and budget.broken_at is not None:
        words = f"The breaker is open: {budget.failures} questions in a row met an outage. "
        words += "Nothing is asked but one question now and then, which closes it when it is answered."
        told.append((words, "bad"))
    elif budget is not None and budget.failures:
        told.append((f"The last {budget.failures} questions met an outage; a few more open the breaker.", "warn"))
    if budget is not None and budget.paused_until is not None and now < budget.paused_until <= now + MAX_DELAY:
        told.append(("The provider wants no request for a while; that is kept to.", "warn"))
    if not account.can_be_asked:
        words = "This provider cannot be asked about its payments. What it sends is all there is: an alarm is raised "
        words += "when it falls silent, and a payment that it says nothing about comes up for review."
        return [*told, (words, "quiet")]
    if plan is None:
        return [*told, ("No schedule was planned yet: that happens while a worker runs.", "quiet")]
    words = f"{plan.watched:,} payments are asked about, {plan.wanted_per_second * 60:,.1f} times a minute in all. "
    words += f"One more question must save {plan.price_seconds:.3g} expected seconds of not knowing to be worth asking."
    told.append((words, "quiet"))
    if plan.stretch > 1:
        words = "The budget is too small to ask about each as often as poller.longest_seconds wants: "
        told.append((words + f"each waits up to {plan.stretch:.1f} times as long.", "warn"))
    if account.budget is None:
        told.append(("No limit of the provider's is known: questions are not held back.", "quiet"))
    return told


def _unknown(count: int) -> list[tuple[str, str]]:
    """Say how many ids wait that deliveries named and no payment here has."""
    if not count:
        return []
    words = f"{count} ids that deliveries named are unknown here: each is asked about, and adopted by the answer."
    return [(words, "quiet")]


def _logged(journal: JournalState | None, late: int, now: datetime) -> list[tuple[str, str]]:
    """Say how far the provider's log of events was read, and what it showed of push."""
    if journal is None:
        return []
    if journal.read_at is None:
        return [("The provider's log of events was not read yet.", "quiet")]
    lost, ago = max(journal.unpushed - late, 0), format_duration(now - journal.read_at)
    words = (
        f"The provider's log of events was read {ago} ago: of {journal.events:,} events {lost:,} came by no webhook, "
    )
    words += f"and {late:,} only after they were read."
    if journal.failures:
        return [(words, "quiet"), (f"It could not be read since: {journal.last_error}.", "warn")]
    return [(words, "quiet")]


def _drift(run: Reconciliation) -> list[tuple[str, int]]:
    """Count what a run found different; what is fresh may yet come by webhook."""
    names = (("drift", "drift"), ("alarming", "alarming"), ("fresh", "fresh"), ("adopted", "adopted"))
    return [(label, run.counts[name]) for name, label in names if run.counts.get(name)]
