"""How each provider's payments were first heard of to be paid, as a table."""

from collections import Counter
from collections.abc import Collection, Mapping

from rich.box import SIMPLE_HEAD
from rich.table import Table

from receipted.demo.plan import ACCOUNTS
from receipted.demo.view import NAMES

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
