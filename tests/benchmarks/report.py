"""Prints what was found, writes it for machines to var/, and for people to docs/performance.md."""

import json
import os
import platform
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tests.benchmarks.config import ROOT
from tests.benchmarks.figures import Bar, Part, Table

DOCUMENT: Final = ROOT / "docs" / "performance.md"
END: Final = "<!-- end -->"


@dataclass(frozen=True, slots=True)
class About:
    """Where and with what it was measured; no name of a machine."""

    cores: int
    machine: str
    python: str
    sqlite: str
    postgresql: str
    rounds: int
    seconds: float  #: that the whole run took
    load: float  #: of others, when it began: above one tenth of the cores, figures are too low

    @classmethod
    def here(cls, postgresql: str, rounds: int, seconds: float, load: float) -> "About":
        """Of this machine."""
        return cls(
            os.cpu_count() or 1,
            platform.machine(),
            platform.python_version(),
            sqlite3.sqlite_version,
            postgresql,
            rounds,
            round(seconds, 1),
            round(load, 2),
        )

    def __str__(self) -> str:
        return (
            f"{self.cores} cores ({self.machine}), Python {self.python}, SQLite {self.sqlite}, "
            f"PostgreSQL {self.postgresql}; at most {self.rounds} rounds, {self.seconds:.0f} s in all; "
            f"the load was {self.load:.1f} when it began."
        )


def show(part: Part) -> None:
    """Print a part as soon as it is done."""
    print(f"\n{part.title} ({part.seconds:.0f} s)", flush=True)
    for table in part.tables:
        print(f"\n{table.title}\n" + _plain(table))
    print(_plain(bars_table(part.bars)) if part.bars else "")
    for fault in part.faults:
        print(f"WRONG  {fault}", flush=True)


def bars_table(bars: Sequence[Bar]) -> Table:
    """Every bar with its target and whether it is reached."""
    head = ("bar", "target", "measured", "")
    rows = [
        (bar.promise, bar.wanted, f"{bar.measured}{bar.unit}" if bar.measured else "-", bar.verdict) for bar in bars
    ]
    return Table("Bars", head, rows)


def _plain(table: Table) -> str:
    lines = [tuple(table.head), *map(tuple, table.rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def markdown(table: Table) -> str:
    """As a table of Markdown."""
    head = "| " + " | ".join(table.head) + " |"
    rule = "|" + "|".join("---:" if column else "---" for column in range(len(table.head))) + "|"
    return "\n".join([head, rule, *("| " + " | ".join(row) + " |" for row in table.rows)])


def save(name: str, parts: Sequence[Part], about: About) -> Path:
    """`var/{name}.json`.

    {"about": {cores, machine, python, sqlite, postgresql, rounds, seconds, load},
     "parts": {name: {"seconds", "bars": [{promise, measured: {median, least, most} or null, target, is_ceiling, unit,
                                           is_reached: true, false or null}],
                      "tables": [{title, head, rows}], "faults": [text]}}}
    """
    target = ROOT / "var" / f"{name}.json"
    target.parent.mkdir(exist_ok=True)
    content = {"about": asdict(about), "parts": {part.name: part.as_data() for part in parts}}
    target.write_text(json.dumps(content, indent=1))
    return target


def write(command: str, parts: Sequence[Part], about: About) -> None:
    """The document holds the figures, between the command's marks."""
    head, _, rest = DOCUMENT.read_text().partition(f"<!-- made by {command} -->")
    _, _, tail = rest.partition(END)
    chapters = [f"{about}", markdown(bars_table([bar for part in parts for bar in part.bars]))]
    for part in parts:
        chapters += [f"## {part.title}", part.about.strip()]
        chapters += [f"{table.title}:\n\n{markdown(table)}" for table in part.tables]
        if part.chart:
            picture = DOCUMENT.with_name(f"performance-{part.name}.svg")
            picture.write_text(f"{part.chart}\n", encoding="utf-8")
            chapters.append(f"![{part.title}]({picture.name})")
    made = "\n\n".join(chapters)
    DOCUMENT.write_text(f"{head}<!-- made by {command} -->\n\n{made}\n\n{END}{tail}")
