"""Strict JSON: no repeated names, and no numbers that JSON lacks."""

import json
import math
from typing import Any, Final

from api.errors import InvalidRequest, RequestFault

MAX_PARAM_CHARS: Final = 100


def check_json(raw: bytes | str) -> None:
    """Check that the text is JSON with one reading; raises InvalidRequest.

    A name that is given twice in one object means one thing to one parser and another to the next, and so does a number
    that JSON does not have: NaN, Infinity, and what is too large for a float.
    """
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
        json.loads(text, object_pairs_hook=_refuse_repeats, parse_float=_finite, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # broken UTF-8, and more digits than Python reads, are ValueErrors
        raise InvalidRequest([RequestFault("invalid_json", "the body is not JSON", None, "body")]) from None


def _refuse_repeats(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            message = "a name is given more than once in one object"
            raise InvalidRequest([RequestFault("repeated_field", message, name[:MAX_PARAM_CHARS], "body")])
        seen.add(name)


def _finite(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise ValueError("out of range")
    return found


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON")
