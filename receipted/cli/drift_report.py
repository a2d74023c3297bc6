"""What a reconciliation found, as text, JSON and CSV. Nothing here decides anything."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from receipted.cli import output
from receipted.cli.moments import lasting
from service import csv_text
from storage.tables_support import Reconciliation
from storage.types import ReconciliationStatus


class Format(StrEnum):
    """How a report is printed."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"


#: The columns of CSV, in this order: the keys of an entry.
COLUMNS: Final = (
    *("payment", "kind", "provider_ref", "reference", "was", "is", "phase", "is_adopted", "since", "found_at"),
    *(
        "unknown_for_seconds",
        "at_most_seconds",
        "is_fresh",
        "is_alarming",
        "effects",
        "reviews",
        "found_by",
        "message",
        "reason",
    ),
)

_INTERNAL: Final = ("claim_token", "position")

_UNKNOWN: Final = "unknown here"


def tell(row: Reconciliation, form: Format) -> None:
    """The report on stdout: text for people, all that is kept as JSON, or what differed as CSV."""
    if form is Format.JSON:
        output.as_json(as_data(row))
    elif form is Format.CSV:
        _as_csv(row)
    else:
        _as_text(row)


def as_data(row: Reconciliation, *, is_whole: bool = True) -> dict[str, Any]:
    """The row for machines; without what differed, payment by payment, where it is one of many."""
    return output.row_of(row, without=_INTERNAL if is_whole else (*_INTERNAL, "drift", "unasked"))


def progress_of(row: Reconciliation) -> str:
    """How far the walk is, in words."""
    done = row.asked + row.failed
    return f"listed {row.listed} on {_many(row.pages, 'page')}, asked about {done} of {max(row.to_ask, done)}"


def _as_csv(row: Reconciliation) -> None:
    entries = ([_cell(entry.get(column)) for column in COLUMNS] for entry in row.drift)
    output.machine(csv_text.encoded([COLUMNS, *entries]))


def _cell(value: Any) -> Any:
    return " ".join(value) if isinstance(value, list) else value


def _as_text(row: Reconciliation) -> None:
    counts = row.counts
    took = (row.finished_at - row.began_at).total_seconds() if row.finished_at else None
    output.fields(
        {
            "reconciliation": row.id,
            "account": row.account,
            "range": f"{output.shown(row.since)} to {output.shown(row.until)}",
            "wanted by": row.asked_by,
            "status": row.status + (f", after {lasting(took)}" if took is not None else ""),
            "held by": f"{row.held_by}, since {output.shown(row.held_at)}" if row.finished_at is None else None,
            "heard": progress_of(row),
            "not listed": "; ".join(f"{e['reason']} ({e['code']})" for e in row.unasked if e["payment"] is None),
            "unchanged": counts.get("unchanged"),
            "parked": counts.get("unknown_here"),
            "not applied": counts.get("unapplied", 0) + counts.get("dead", 0) or None,
            "error": row.last_error,
        }
    )
    if row.drift:
        output.say("")
        output.say(f"Drift: {_sum(counts)}")
        output.table(
            ("Payment", "Reference or id", "Was", "Is", "Since", "Unknown for", "Changed", "Found by"),
            (_line(entry) for entry in row.drift),
        )
    elif row.status == ReconciliationStatus.DONE:
        output.say("no drift: what was heard is what was known")
    missing = [entry for entry in row.unasked if entry["payment"] is not None]
    if missing:
        output.say("")
        told = f", of which {len(missing)} are" if row.failed > len(missing) else ""
        output.say(f"Not asked or not answered: {max(row.failed, len(missing))}{told}")
        output.table(("Payment", "Kind", "Provider's id", "Why"), (_why(entry) for entry in missing))


def _sum(counts: Mapping[str, int]) -> str:
    parts = {
        "drift": _many(counts["drift"], "payment"),
        "adopted": f"{counts['adopted']} never heard of before",
        "fresh": f"{counts['fresh']} so young that a webhook may have been on its way",
        "effects": f"{_many(counts['effects'], 'effect')} owed",
        "reviews": f"{_many(counts['reviews'], 'review')} opened",
    }
    return ", ".join(words for name, words in parts.items() if counts[name])


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _line(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    since = datetime.fromisoformat(entry["since"]) if entry["since"] else "unknown"
    at_most = lasting(entry["at_most_seconds"])
    return (
        output.short(entry["payment"]),
        entry["reference"] or entry["provider_ref"],
        _UNKNOWN if entry["is_adopted"] else entry["was"] or "no state",
        entry["is"] or "no state",
        since,
        lasting(entry["unknown_for_seconds"]) or (f"at most {at_most}" if at_most else "unknown"),
        ", ".join([*entry["effects"], *(f"review {review}" for review in entry["reviews"])]),
        entry["found_by"],
    )


def _why(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return (
        output.short(entry["payment"]),
        entry["kind"],
        entry["provider_ref"],
        f"{entry['reason']} ({entry['code']})",
    )
