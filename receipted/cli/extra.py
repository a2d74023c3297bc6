"""Fields that are given as `key=value` or as a JSON object."""

import json
from collections.abc import Sequence

from api.errors import InvalidRequest
from api.reading import check_json
from receipted.cli.exits import InvalidInput


def fields_of(given: Sequence[str], *, option: str = "extra") -> dict[str, object]:
    """The fields, a later one over an earlier one of its name; `key=value` gives text. Raises InvalidInput."""
    found: dict[str, object] = {}
    for text in given:
        found.update(_object(text, option) if text.lstrip().startswith("{") else _pair(text, option))
    return found


def words_of(given: Sequence[str], *, option: str) -> dict[str, str]:
    """As `fields_of`, for `key=value` only."""
    found: dict[str, str] = {}
    for text in given:
        found.update(_pair(text, option))
    return found


def _pair(text: str, option: str) -> dict[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InvalidInput(f"--{option} takes key=value or a JSON object, not {text!r}", param=option)
    return {key.strip(): value}


def _object(text: str, option: str) -> dict[str, object]:
    try:
        check_json(text)
        found = json.loads(text)
    except (InvalidRequest, ValueError) as fault:
        raise InvalidInput(f"--{option} is not JSON: {fault}", param=option) from fault
    if not isinstance(found, dict):
        raise InvalidInput(f"--{option} takes a JSON object", param=option)
    return found
