"""What is masked before anything is written: secrets, signatures, cards and bank accounts, at any depth."""

import math
from collections.abc import Iterable, Mapping, MutableMapping
from datetime import date, time
from enum import Enum
from typing import Any, Final
from uuid import UUID

from receipted.redaction_names import holds_digest, is_secret_name
from receipted.redaction_text import MASK, Registered, redact_text

__all__ = ["DROPPED", "MASK", "forget_secrets", "redact", "redact_event", "register_secrets"]

DROPPED: Final = "[dropped]"  #: in place of a value that could not be made safe

_DEPTH: Final = 12
_WIDTH: Final = 200  #: of one container
_NODES: Final = 5_000  #: of one line, so that a huge or endless value cannot stop the process
_CARD_AS_NUMBER: Final = 10**12

_registered: Final = Registered()


def register_secrets(values: Iterable[str]) -> None:
    """From now on these values appear in no log line, nor their URL-encoded, JSON or Base64 forms.

    Values of fewer than 8 characters are left out: masking them would garble ordinary words.
    """
    _registered.add(values)


def forget_secrets() -> None:
    """Undo register_secrets(), for tests and for a reload."""
    _registered.clear()


def redact_event(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The event as JSON values with everything secret masked, for structlog. Never raises: drops the value instead."""
    line: dict[str, Any] = {}
    nodes = [_NODES]
    for key, value in event.items():
        try:
            line[redact_text(key, _registered)] = _named(key, value, _DEPTH, nodes)
        except Exception:  # noqa: BLE001 - whatever a value's own code raises must not cost the line
            line[_fallback(key)] = DROPPED
    return line


def redact(value: Any) -> Any:
    """The value as JSON values with everything secret masked; raises only what the value's own code raises."""
    return _value(value, _DEPTH, [_NODES], keep_digests=False)


def _fallback(key: object) -> str:
    return key if isinstance(key, str) and key.isidentifier() and len(key) < 40 else "unnamed"


def _named(name: object, value: Any, depth: int, nodes: list[int]) -> Any:
    if value is None or value is True or value is False:
        return value
    text = name.decode("latin-1") if isinstance(name, bytes) else name
    if not isinstance(text, str):
        return _value(value, depth, nodes, keep_digests=False)
    if is_secret_name(text):
        return MASK
    return _value(value, depth, nodes, keep_digests=holds_digest(text))


def _value(value: Any, depth: int, nodes: list[int], *, keep_digests: bool) -> Any:
    nodes[0] -= 1
    if depth < 0 or nodes[0] < 0:
        return DROPPED
    if value is None or value is True or value is False:
        return value
    if isinstance(value, Enum):
        return _value(value.value, depth - 1, nodes, keep_digests=keep_digests)
    if isinstance(value, str):
        return redact_text(str.__str__(value), _registered, keep_digests=keep_digests)
    if isinstance(value, int | float):
        return _number(value)
    if isinstance(value, bytes | bytearray | memoryview):
        text = bytes(value).decode("utf-8", "backslashreplace")
        return redact_text(text, _registered, keep_digests=keep_digests)
    if isinstance(value, UUID | date | time):
        return str(value)
    if isinstance(value, Mapping):
        return _mapping(value, depth, nodes)
    if isinstance(value, list | tuple | set | frozenset):
        return _items(value, depth, nodes, keep_digests=keep_digests)
    if isinstance(value, BaseException):
        return redact_text(f"{type(value).__name__}: {value}", _registered)
    return redact_text(repr(value), _registered)


def _number(value: float) -> int | float | str:
    if isinstance(value, float):
        if not math.isfinite(value):
            return str(value)  # JSON has no word for it
        number: int | float = float(value)
        whole = int(value)
    else:
        number = whole = int(value)
    if abs(whole) >= _CARD_AS_NUMBER and MASK in redact_text(str(abs(whole)), _registered):
        return MASK
    return number


def _mapping(value: Mapping[Any, Any], depth: int, nodes: list[int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for at, (key, inner) in enumerate(value.items()):
        if at == _WIDTH:
            found["..."] = DROPPED
            break
        shown = _value(key, depth - 1, nodes, keep_digests=False)
        found[shown if isinstance(shown, str) else str(shown)] = _named(key, inner, depth - 1, nodes)
    return found


def _items(value: Iterable[Any], depth: int, nodes: list[int], *, keep_digests: bool) -> list[Any]:
    found: list[Any] = []
    for at, inner in enumerate(value):
        if at == _WIDTH:
            found.append(DROPPED)
            break
        found.append(_value(inner, depth - 1, nodes, keep_digests=keep_digests))
    # headers come as pairs of name and value
    if isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str | bytes):
        found[1] = _named(value[0], value[1], depth - 1, nodes)
    return found
