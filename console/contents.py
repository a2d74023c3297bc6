"""What a message holds, as people read it: its exact bytes, and the same JSON with lines. Pure, and total on any bytes.

Nothing that is shown can steer a browser, a terminal or a reader's eye: what is no plain character is written as an
escape, and what is no text as its bytes.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

from storage.tables import InboxMessage, RejectedDelivery

#: Bytes of one message that stand in the page; the rest is to be downloaded.
MOST: Final = 4096
_ROW: Final = 16
_INDENT: Final = "  "

#: Joiners that scripts need to be written; every other invisible character is escaped.
_JOINERS: Final = frozenset("\u200c\u200d")


@dataclass(frozen=True, slots=True)
class Contents:
    """The bytes of one message, or the beginning of many."""

    kind: Literal["scrubbed", "empty", "json", "text", "bytes"]
    size: int
    exact: str = ""  #: as text where they are text, else in hexadecimal
    pretty: str | None = None  #: the same JSON, one value a line; None for anything else
    left_off: int = 0  #: bytes that are not in `exact`

    def withheld(self) -> "Contents":
        """Return the kind and size alone."""
        return replace(self, exact="", pretty=None)


def contents(message: InboxMessage | RejectedDelivery) -> Contents:
    """What the message holds."""
    body = bytes(message.body)
    if isinstance(message, InboxMessage) and message.scrubbed_at is not None:
        return Contents("scrubbed", 0)
    if not body:
        return Contents("empty", 0)
    left_off = max(0, len(body) - MOST)
    text = _text(body)
    if text is None:
        return Contents("bytes", len(body), "\n".join(_hex(body[:MOST])), left_off=left_off)
    shown = _plain(body[:MOST].decode("utf-8", "ignore"))  # a character that is cut in two is left off
    pretty = None if left_off else _pretty(text)
    return Contents("text" if pretty is None else "json", len(body), shown, pretty, left_off)


def _text(body: bytes) -> str | None:
    """The bytes as text where they are UTF-8 without NUL."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _plain(text: str) -> str:
    """The text with an escape for each character that is not seen."""
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(letter: str) -> str:
    if letter in "\n\t" or letter in _JOINERS or unicodedata.category(letter)[0] not in "CZ" or letter == " ":
        return letter
    code = ord(letter)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _hex(body: bytes) -> Iterator[str]:
    for at in range(0, len(body), _ROW):
        row = body[at : at + _ROW]
        letters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{at:06x}  {row.hex(' '):<{_ROW * 3 - 1}}  {letters}"


def _pretty(text: str) -> str | None:
    """The JSON with lines and indents, every name, number and text exactly as it came; None for what is no JSON."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    return "".join(_lines(text))


#: Of what is known to be JSON: a text, a mark, or any other value.
_PART: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\s\[\]{},:"]+')


def _lines(text: str) -> Iterator[str]:
    depth, is_begun = 0, False
    for part in _PART.findall(text):
        if part in "]}":
            depth -= 1
            if not is_begun:  # what holds nothing stands on one line
                yield "\n" + _INDENT * depth
        elif is_begun:
            yield "\n" + _INDENT * depth
        is_begun = part in "[{,"
        depth += part in "[{"
        yield ": " if part == ":" else _plain(part)
