"""Tables of the demonstration: counts while it runs, one row a provider at the end, and who reported each payment."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table

from receipted.demo.compare import Wrong
from receipted.demo.plan import ACCOUNTS
from storage.counts import AccountCounts

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


@dataclass(frozen=True, slots=True)
class Figures:
    """All that a table needs."""

    counts: Mapping[str, AccountCounts]
    fulfilled: Mapping[str, int]  #: by account
    wrong: Sequence[Wrong]


def table(figures: Figures, title: str, *, is_final: bool) -> Table:
    """One row a provider and a total; `wrong` is known only at the end."""
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


def _row(provider: str, figures: Figures) -> Counter[str]:
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


#: The ways of storage/totals.py with their headings, in the order of how little had to be asked.
_WAYS = {
    "pushed": "pushed",
    "hinted": "asked after\na hint",
    "returned": "asked after\na return",
    "asked": "asked\nby us",
    "listed": "listed",
    "told": "answered",
    "resolved": "by a\nperson",
}

#: Shown in any case; the others where there are any.
_ALWAYS = ("pushed", "asked")


def heard_table(heard: Mapping[str, Counter[str]], lost: Collection[str]) -> Table:
    """One row a provider; `heard` is by account, and of the providers in `lost` every webhook was lost."""
    rows: dict[str, Counter[str]] = {provider: Counter() for provider in NAMES}
    for account in ACCOUNTS:
        rows[account.provider].update(heard.get(account.name, Counter()))
    shown = [way for way in _WAYS if way in _ALWAYS or any(row[way] for row in rows.values())]
    made = Table(
        title="How payments were first heard of to be paid",
        title_justify="left",
        pad_edge=False,
        padding=(0, 1, 0, 0),
        box=SIMPLE_HEAD,
    )
    made.add_column("\nprovider", no_wrap=True)
    for way in shown:
        made.add_column(_WAYS[way], justify="right", vertical="bottom")
    for provider, row in rows.items():
        name = NAMES[provider] + (", every webhook lost" if provider in lost else "")
        made.add_row(name, *(str(row[way]) for way in shown))
    return made
