"""What the demonstration shows: counts while it runs, one row a provider at the end."""

from collections import Counter
from collections.abc import Mapping, Sequence
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
