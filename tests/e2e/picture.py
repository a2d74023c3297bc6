"""Takes the README's picture anew, from a running console: `python -m tests.e2e.picture`."""

import struct
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from tests.e2e.browsing import launched
from tests.e2e.deployment import deployed
from tests.e2e.story import Story
from tests.repo.tree import ROOT

PICTURE = ROOT / "docs" / "payment-page.png"
_SIZE = {"width": 1200, "height": 1120}
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def take(folder: Path) -> bytes:
    """Order a payment, pay it, and take a picture of its page."""
    with deployed(folder) as running, launched() as browser:
        paid = running.act(running.order("payfield", 1_234_567), "pay", until_phase="paid")
        running.shop.wait_for(running.shop.paid, "the shop was told")
        ada = running.console.person("admin", "ada")
        context = browser.new_context(viewport=_SIZE, color_scheme="light")
        page = Story(running, ada, ada, ada, {}).enter(context, ada)
        page.goto(f"{running.url}/console/payments/{paid.id}")
        page.wait_for_load_state("load")
        return page.screenshot()


def with_palette(png: bytes) -> bytes:
    """The picture with its 256 most frequent colours: a third of the bytes, and nobody sees it."""
    width, height, lines = _decoded(png)
    pixels = [[line[at : at + 3] for at in range(0, len(line), 3)] for line in lines]
    colours = [colour for colour, _ in Counter(pixel for line in pixels for pixel in line).most_common(256)]

    @cache
    def nearest(pixel: bytes) -> int:
        distance = [sum((a - b) ** 2 for a, b in zip(pixel, colour, strict=True)) for colour in colours]
        return distance.index(min(distance))

    data = b"".join(b"\0" + bytes(map(nearest, line)) for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    parts = ((b"IHDR", header), (b"PLTE", b"".join(colours)), (b"IDAT", zlib.compress(data, 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )


def _decoded(png: bytes) -> tuple[int, int, list[bytes]]:
    """Width, height, and the bytes of each line, of a picture with three bytes a pixel."""
    chunks = list(_chunks(png))
    width, height, depth, kind = struct.unpack(">IIBB", chunks[0][1][:10])
    assert (depth, kind) == (8, 2)
    raw = zlib.decompress(b"".join(content for name, content in chunks if name == b"IDAT"))
    step, lines = width * 3 + 1, [bytes(width * 3)]
    for at in range(0, height * step, step):
        lines.append(_unfiltered(raw[at], raw[at + 1 : at + step], lines[-1]))
    return width, height, lines[1:]


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        at += size + 12


def _unfiltered(kind: int, line: bytes, above: bytes) -> bytes:
    """One line without its filter. Source: PNG specification, section 9."""
    found = bytearray(3)  # a pixel before the first
    for at, value in enumerate(line):
        left, up, corner = found[at], above[at], above[at - 3] if at >= 3 else 0
        estimate = left + up - corner
        predicted = min((left, up, corner), key=lambda near: abs(estimate - near))
        found.append((value + (0, left, up, (left + up) // 2, predicted)[kind]) & 255)
    return bytes(found[3:])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        PICTURE.write_bytes(with_palette(take(Path(made))))
