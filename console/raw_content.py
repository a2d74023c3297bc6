"""Bytes and headers that others sent, escaped for display.

Nothing of them steers a browser, a terminal or a reader's eye.
"""

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from service.text import shown
from storage.tables import InboxMessage, RejectedDelivery

#: Bytes of one message that stand in the page; the rest is to be downloaded.
CONTENT_BYTES: Final = 4096
_BYTES_PER_LINE: Final = 16
_INDENT: Final = "  "

#: Joiners that scripts need to be written; every other invisible character is escaped.
_JOINERS: Final = frozenset("\u200c\u200d")


@dataclass(frozen=True, slots=True)
class MessageContent:
    """Content of one message for its page; of a long one, the beginning."""

    kind: Literal["scrubbed", "empty", "json", "text", "bytes"]
    size: int
    exact: str = ""  #: as text where they are text, else in hexadecimal
    pretty: str | None = None  #: the same JSON, one value a line; None for anything else
    left_off: int = 0  #: bytes that are not in `exact`

    def withheld(self) -> "MessageContent":
        """Return the kind and size alone."""
        return replace(self, exact="", pretty=None)


def message_content(message: InboxMessage | RejectedDelivery) -> MessageContent:
    """Return the content of a message: exact bytes, and JSON with line breaks."""
    body = bytes(message.body)
    if isinstance(message, InboxMessage) and message.scrubbed_at is not None:
        return MessageContent("scrubbed", 0)
    if not body:
        return MessageContent("empty", 0)
    left_off = max(0, len(body) - CONTENT_BYTES)
    text = _decoded(body)
    if text is None:
        return MessageContent("bytes", len(body), "\n".join(_hex(body[:CONTENT_BYTES])), left_off=left_off)
    shown = _plain(body[:CONTENT_BYTES].decode("utf-8", "ignore"))  # a character that is cut in two is left off
    pretty = None if left_off else _pretty(text)
    return MessageContent("text" if pretty is None else "json", len(body), shown, pretty, left_off)


def _decoded(body: bytes) -> str | None:
    """Decode bytes that are UTF-8 without NUL; None for others."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _plain(text: str) -> str:
    """Escape each invisible character."""
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(letter: str) -> str:
    if letter in "\n\t" or letter in _JOINERS or unicodedata.category(letter)[0] not in "CZ" or letter == " ":
        return letter
    code = ord(letter)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _hex(body: bytes) -> Iterator[str]:
    for at in range(0, len(body), _BYTES_PER_LINE):
        row = body[at : at + _BYTES_PER_LINE]
        letters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        yield f"{at:06x}  {row.hex(' '):<{_BYTES_PER_LINE * 3 - 1}}  {letters}"


def _pretty(text: str) -> str | None:
    """Add lines and indents to JSON, every token exactly as it came; None for others."""
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


#: Bytes of a body that a page shows; the rest is said to be there.
RAW_BYTES: Final = 64 * 1024

_DUMP_BYTES_PER_LINE: Final = 16

#: Parts of the names of headers whose values authenticate their sender.
_SECRET_NAME_PARTS: Final = (
    "authorization",
    "cookie",
    "token",
    "secret",
    "password",
    "api-key",
    "apikey",
    "signature",
    "session",
)


@dataclass(frozen=True, slots=True)
class RawBytes:
    """Bytes as text, or as a dump where they are no text."""

    size: int
    text: str | None  #: None where they are no text
    dump: str  #: offset, bytes and characters; empty where they are text
    is_cut: bool


def raw_bytes(content: bytes | str) -> RawBytes:
    """Prepare bytes for display; control and bidirectional characters are replaced."""
    content = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else bytes(content)
    head = content[:RAW_BYTES]
    text = _printable(head, is_cut=len(content) > RAW_BYTES)
    return RawBytes(len(content), text, "" if text is not None else _dump(head), len(content) > RAW_BYTES)


def masked_headers(kept: Iterable[Sequence[str]]) -> list[tuple[str, str]]:
    """Prepare headers for display; of credentials only the length is shown."""
    return [(shown(name), _masked(name, value)) for name, value in kept]


def _masked(name: str, value: str) -> str:
    is_digest = value.startswith("sha256=") and "signature" not in name.lower()
    if not is_digest and any(part in name.lower() for part in _SECRET_NAME_PARTS):
        return f"({len(value)} characters, not shown)"
    return shown(value)


def _printable(head: bytes, *, is_cut: bool) -> str | None:
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
    for at in range(0, len(head), _DUMP_BYTES_PER_LINE):
        part = head[at : at + _DUMP_BYTES_PER_LINE]
        printed = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{at:08x}  {part.hex(' '):<{3 * _DUMP_BYTES_PER_LINE}} {printed}")
    return "\n".join(lines)
