"""Results of the demonstration: comparison with the providers, and tables."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from receipted.demo.plan import ACCOUNTS
from statemachine.phases import Phase
from storage.counts import AccountCounts
from storage.tables import Payment

_SANDBOX_OF = {account.name: account.sandbox for account in ACCOUNTS}
_FULFILLED = frozenset({Phase.PAID.value, Phase.SETTLED.value})
Key = tuple[str, str, str]
NAMES = {
    "alternative_payments": "Alternative Payments",
    "stable_genius": "Stable Genius",
    "payfield": "Payfield",
    "banked": "Banked",
}
_PAID = ("paid", "settled")

#: Columns with their headings, broken so that a row fits into 80 characters.
_COLUMNS = {
    "payments": "pay-\nments",
    "deliveries": "deliv-\neries",
    "duplicates": "dupli-\ncates",
    "rejected": "re-\njected",
    "stale": "\nstale",
    "parked": "\nparked",
    "conflicts": "con-\nflicts",
    "polls": "\npolls",
    "paid": "\npaid",
    "fulfilled": "ful-\nfilled",
    "wrong": "\nwrong",
}

#: The ways of storage/totals.py with their headings, in the order of how little had to be asked.
_SOURCE_HEADINGS = {
    "pushed": "pushed",
    "hinted": "asked after\na hint",
    "returned": "asked after\na return",
    "asked": "asked\nby us",
    "listed": "listed",
    "told": "answered",
    "resolved": "by a\nperson",
}

#: Shown in any case; the others where there are any.
_ALWAYS_SHOWN = ("pushed", "asked")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One payment that is not as it must be."""

    account: str
    payment: str
    problem: str


def truth_by_key(truth: Sequence[Mapping[str, Any]]) -> dict[Key, Mapping[str, Any]]:
    """Index the sandbox's resources by provider, kind and id."""
    return {(str(item["provider"]), str(item["kind"]), str(item["ref"])): item for item in truth}


def find_mismatches(
    payments: Sequence[Payment], truth: Mapping[Key, Mapping[str, Any]], fulfilled: Mapping[str, int]
) -> list[Mismatch]:
    """Return all differences between this service, the providers and the shop."""
    found: list[Mismatch] = []
    seen: Counter[Key] = Counter()
    for payment in payments:
        key = (_SANDBOX_OF[payment.account], payment.kind, payment.provider_ref or "")
        seen[key] += 1 if payment.provider_ref is not None else 0
        found += (
            Mismatch(payment.account, payment.id, problem)
            for problem in _problems(payment, truth.get(key), fulfilled.get(payment.id, 0))
        )
    accounts = {account.sandbox: account.name for account in ACCOUNTS}
    found += (
        Mismatch(accounts[key[0]], key[2], f"the provider holds a {key[1]} {item['state']} that is not known here")
        for key, item in truth.items()
        if key not in seen
    )
    found += (Mismatch(accounts[key[0]], key[2], "is kept twice") for key, count in seen.items() if count > 1)
    unknown = set(fulfilled) - {payment.id for payment in payments}
    found += (Mismatch("-", payment_id, "was fulfilled and is not known here") for payment_id in unknown)
    return found


def _problems(payment: Payment, true: Mapping[str, Any] | None, times: int) -> list[str]:
    problems = []
    if true is None:
        if payment.provider_ref is not None:
            problems.append("the provider does not know it")
        elif payment.state != "not_created":
            problems.append(f"it has no answer to its create call, and is {payment.state}")
    elif (payment.state, payment.amount_minor, payment.currency) != (
        true["state"],
        true["amount_minor"],
        true["currency"],
    ):
        problems.append(f"it is {payment.state} here and {true['state']} at the provider")
    if payment.review is not None:
        problems.append(f"it still needs review: {payment.review}")
    must = 1 if payment.phase in _FULFILLED else 0
    may = 1 if must or (true is not None and true["ever_paid"]) else 0
    if not must <= times <= may:
        problems.append(f"it is {payment.state} and was fulfilled {times} times")
    return problems


@dataclass(frozen=True, slots=True)
class DemoFigures:
    """Counts and mismatches for a table."""

    counts: Mapping[str, AccountCounts]
    fulfilled: Mapping[str, int]  #: by account
    wrong: Sequence[Mismatch]


def table(figures: DemoFigures, title: str, *, is_final: bool) -> Table:
    """Build a table of one row a provider and a total; `wrong` is known at the end."""
    made = Table(title=title, title_justify="left", pad_edge=False, padding=0, box=SIMPLE_HEAD, show_footer=True)
    rows = [(name, _row(provider, figures)) for provider, name in NAMES.items()]
    total: Counter[str] = Counter()
    for _, row in rows:
        total.update(row)
    made.add_column("\nprovider", footer="all", no_wrap=True)
    for column, heading in _COLUMNS.items():
        is_bad = column == "wrong" and total[column] > 0
        shown = str(total[column]) if is_final or column != "wrong" else "-"
        made.add_column(heading, footer=shown, justify="right", style="red" if is_bad else "")
    for name, row in rows:
        made.add_row(name, *(str(row[column]) if is_final or column != "wrong" else "-" for column in _COLUMNS))
    return made


def _row(provider: str, figures: DemoFigures) -> Counter[str]:
    row: Counter[str] = Counter()
    for account in ACCOUNTS:
        if account.provider != provider:
            continue
        counts = figures.counts.get(account.name, AccountCounts())
        pushed = counts.sources["webhook"] + counts.sources["callback"]
        row.update(
            {
                "payments": counts.phases.total(),
                "deliveries": pushed + counts.redeliveries + counts.rejected,
                "duplicates": counts.redeliveries,
                "rejected": counts.rejected,
                "stale": counts.decisions["stale"],
                "parked": counts.statuses["parked"],
                "conflicts": counts.decisions["conflict"],
                "polls": counts.sources["poll"],
                "paid": sum(counts.phases[phase] for phase in _PAID),
                "fulfilled": figures.fulfilled.get(account.name, 0),
                "wrong": sum(1 for wrong in figures.wrong if wrong.account == account.name),
            }
        )
    return row


def sources_table(sources: Mapping[str, Counter[str]], lost: Collection[str]) -> Table:
    """Build a table of what first reported payments as paid, one row a provider.

    `sources` is by account, and of the providers in `lost` every webhook was lost.
    """
    rows: dict[str, Counter[str]] = {provider: Counter() for provider in NAMES}
    for account in ACCOUNTS:
        rows[account.provider].update(sources.get(account.name, Counter()))
    shown = [way for way in _SOURCE_HEADINGS if way in _ALWAYS_SHOWN or any(row[way] for row in rows.values())]
    made = Table(
        title="First report of each paid payment",
        title_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
        box=SIMPLE_HEAD,
    )
    made.add_column("\nprovider", no_wrap=True)
    for way in shown:
        made.add_column(_SOURCE_HEADINGS[way], justify="right", vertical="bottom")
    for provider, row in rows.items():
        name = NAMES[provider] + (", every webhook lost" if provider in lost else "")
        made.add_row(name, *(str(row[way]) for way in shown))
    return made
