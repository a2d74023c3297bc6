"""Memory that processes share which answer at one socket: each leaves its figures, and whoever is asked adds them.

The memory is anonymous: it is made before the processes are begun and ends with them, so that there is no file to be
cleared away, none of another run is mistaken for one of this, and kill -9 costs one second's figures.
"""

import mmap
import struct
import zlib
from collections.abc import Iterator
from typing import Final

#: Bytes for one figure's place: two copies, of which one is whole whenever the other is being written.
_HALF: Final = 256 * 1024

_HEAD: Final = struct.Struct("<QII")  # generation, length, CRC-32


class Board:
    """So many places, each written by one process at a time and read by all. Make it before forking."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._memory = mmap.mmap(-1, places * 2 * _HALF)

    def write(self, place: int, content: bytes) -> bool:
        """The place holds the content; False where it is too large, and what was there stays."""
        if len(content) > _HALF - _HEAD.size:
            return False
        newest = max(self._halves(place), default=(0, 0, b""))
        at = self._at(place, 1 - newest[1] if newest[0] else 0)
        self._memory[at + _HEAD.size : at + _HEAD.size + len(content)] = content
        self._memory[at : at + _HEAD.size] = _HEAD.pack(newest[0] + 1, len(content), zlib.crc32(content))
        return True

    def read(self, place: int) -> bytes:
        """What was written last, whole; empty where nothing was."""
        newest = max(self._halves(place), default=None)
        return newest[2] if newest is not None else b""

    def others(self, place: int) -> Iterator[bytes]:
        """What stands in all other places."""
        return (found for each in range(self._places) if each != place and (found := self.read(each)))

    def _at(self, place: int, half: int) -> int:
        return (2 * place + half) * _HALF

    def _halves(self, place: int) -> Iterator[tuple[int, int, bytes]]:
        """Generation, which half, and content of those that are whole."""
        for half in (0, 1):
            at = self._at(place, half)
            generation, length, digest = _HEAD.unpack(self._memory[at : at + _HEAD.size])
            if generation and length <= _HALF - _HEAD.size:
                content = self._memory[at + _HEAD.size : at + _HEAD.size + length]
                if zlib.crc32(content) == digest:
                    yield generation, half, content
