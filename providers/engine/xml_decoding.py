"""XML with types in attributes, read as JSON is, and written likewise."""

from collections.abc import Mapping
from typing import Final
from xml.parsers import expat
from xml.sax.saxutils import escape

from providers.decoding import Unreadable

#: Deeper or larger than any answer is.
_MAX_DEPTH: Final = 60
_MAX_ELEMENTS: Final = 100_000


class _Element:
    """An element that is being read."""

    __slots__ = ("attributes", "children", "tag", "text")

    def __init__(self, tag: str, attributes: Mapping[str, str]) -> None:
        self.tag, self.attributes = tag, attributes
        self.children: list[tuple[str, object]] = []
        self.text: list[str] = []

    def value(self) -> object:
        """Return what the element says, by its attributes."""
        kind = self.attributes.get("type")
        if self.attributes.get("nil") == "true":
            return None
        if kind == "array":
            return [value for _, value in self.children]
        if self.children:
            return _members(self.children)
        text = "".join(self.text)
        if not text.strip():
            return None
        if kind == "integer":
            return _integer(text.strip())
        if kind == "boolean":
            return text.strip() in ("true", "1")
        return text


def _members(children: list[tuple[str, object]]) -> dict[str, object]:
    """Return an object; an element that comes twice is a list."""
    found: dict[str, object] = {}
    repeated: dict[str, list[object]] = {}
    for tag, value in children:
        if tag in repeated:
            repeated[tag].append(value)
        elif tag in found:
            found[tag] = repeated[tag] = [found[tag], value]
        else:
            found[tag] = value
    return found


def _integer(text: str) -> int:
    if not (text.isascii() and text.removeprefix("-").isdigit()) or len(text) > 30:
        raise Unreadable("the XML has an integer that is none")
    return int(text)


class _Builder:
    """Builds the value of a document; refuses what no provider sends."""

    def __init__(self) -> None:
        self.open: list[_Element] = []
        self.count = 0
        self.root: dict[str, object] | None = None

    def begin(self, tag: str, attributes: Mapping[str, str]) -> None:
        self.count += 1
        if len(self.open) >= _MAX_DEPTH or self.count > _MAX_ELEMENTS:
            raise Unreadable("the XML is too deep or too large")
        self.open.append(_Element(tag, attributes))

    def text(self, text: str) -> None:
        self.open[-1].text.append(text)

    def end(self, tag: str) -> None:
        element = self.open.pop()
        if self.open:
            self.open[-1].children.append((tag, element.value()))
        else:
            self.root = {tag: element.value()}

    def refuse(self, *_declared: object) -> None:
        """Refuse a document type: it could define entities that grow or read files."""
        raise Unreadable("the XML has a document type")


def xml_value(body: bytes) -> Mapping[str, object]:
    """Parse XML to an object with its root's name; raise Unreadable only."""
    builder, parser = _Builder(), expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = builder.begin, builder.end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.text, builder.refuse
    parser.buffer_text = True
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, ValueError, LookupError) as fault:
        if isinstance(fault, Unreadable):
            raise
        raise Unreadable("the body is no XML") from None
    if builder.root is None:
        raise Unreadable("the body is no XML")
    return builder.root


def xml_text(fields: Mapping[str, object]) -> bytes:
    """Write an object as XML, with the types of what is no text."""
    return "".join(_written(name, value) for name, value in fields.items()).encode()


def _written(name: str, value: object) -> str:
    if isinstance(value, Mapping):
        inner = "".join(_written(each, part) for each, part in value.items())
        return f"<{name}>{inner}</{name}>"
    if isinstance(value, list | tuple):
        inner = "".join(_written("item", part) for part in value)
        return f'<{name} type="array">{inner}</{name}>'
    if isinstance(value, bool):
        return f'<{name} type="boolean">{str(value).lower()}</{name}>'
    if isinstance(value, int):
        return f'<{name} type="integer">{value}</{name}>'
    return f"<{name}>{escape(str(value))}</{name}>"
