"""CSV for spreadsheets, written in one place for the command line and the console.

A spreadsheet guesses where a cell begins: by commas, or by semicolons, tabs or bars where the locale or the reader says
so, and then the quotes around a cell that holds one of these do not count. So every text is quoted, and an apostrophe
stands wherever a formula would begin by any of these rules.
Sources: RFC 4180; OWASP, "CSV Injection".
"""

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Final

from service.text import shown

MEDIA_TYPE: Final = "text/csv; charset=utf-8"

#: Characters that begin a formula, in the widths that spreadsheets take for the same.
_FORMULA: Final = "=+\\-@＝＋－＠﹢﹣﬩"

#: A formula at the beginning of a text, or behind what some locale takes for the end of a cell. A comma ends one only
#: where quotes count.
_BEGINNING: Final = re.compile(rf"(^|[;|\t\r\n])([\s\"]*)(?=[{_FORMULA}])")


def encoded(rows: Iterable[Iterable[Any]]) -> bytes:
    """Encode the rows in UTF-8, each ended by a line feed."""
    return "".join(f"{','.join(map(cell, row))}\n" for row in rows).encode("utf-8", "backslashreplace")


def cell(value: Any) -> str:
    """Format one cell: numbers and truth values plain, None empty, the rest quoted.

    Instants are ISO 8601 with Z, lists and objects JSON.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal) and not isinstance(value, Enum):
        return str(value)
    return '"' + harmless(_text(value)).replace('"', '""') + '"'


def harmless(text: str) -> str:
    """Put an apostrophe wherever a spreadsheet may see a formula begin."""
    return _BEGINNING.sub(r"\1\2'", text)


def _text(value: Any) -> str:
    if isinstance(value, dict | list | tuple):
        return shown(json.dumps(value, default=_plain, ensure_ascii=False, separators=(",", ":")), keep="\n\t")
    if isinstance(value, datetime):
        return str(_plain(value))
    return shown(value, keep="\n\t")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Path | Enum | Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON here")
