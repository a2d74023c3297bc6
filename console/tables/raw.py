"""Bytes that others sent, as a page may show them: text where it can be printed, hexadecimal otherwise."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from service.text import shown

#: Bytes of a body that a page shows; the rest is said to be there.
MOST: Final = 64 * 1024

_PER_LINE: Final = 16

#: Parts of the names of headers whose values let whoever has them speak as another.
_MASKED: Final = ("authorization", "cookie", "token", "secret", "password", "api-key", "apikey", "signature", "session")


@dataclass(frozen=True, slots=True)
class Raw:
    """What is shown of some bytes."""

    size: int
    text: str | None  #: None where they are no text
    dump: str  #: offset, bytes and characters; empty where they are text
    is_cut: bool


def raw(content: bytes | str) -> Raw:
    """The bytes as they may be shown. Control characters and what turns text round are replaced by a sign."""
    content = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else bytes(content)
    head = content[:MOST]
    text = _text(head, is_cut=len(content) > MOST)
    return Raw(len(content), text, "" if text is not None else _dump(head), len(content) > MOST)


def headers(kept: Iterable[Sequence[str]]) -> list[tuple[str, str]]:
    """Names and values as they may be shown; of what could be used by a reader only the length is told."""
    return [(shown(name), _masked(name, value)) for name, value in kept]


def _masked(name: str, value: str) -> str:
    is_digest = value.startswith("sha256=") and "signature" not in name.lower()
    if not is_digest and any(part in name.lower() for part in _MASKED):
        return f"({len(value)} characters, not shown)"
    return shown(value)


def _text(head: bytes, *, is_cut: bool) -> str | None:
    for end in range(len(head), max(len(head) - 4, -1), -1):  # the cut may go through a character
        try:
            found = head[:end].decode("utf-8")
        except UnicodeDecodeError:
            if not is_cut:
                return None
            continue
        if "\0" in found:
            return None
        return shown(found, keep="\n\t\r").replace("\r\n", "\n")
    return None


def _dump(head: bytes) -> str:
    lines = []
    for at in range(0, len(head), _PER_LINE):
        part = head[at : at + _PER_LINE]
        printed = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{at:08x}  {part.hex(' '):<{3 * _PER_LINE}} {printed}")
    return "\n".join(lines)
