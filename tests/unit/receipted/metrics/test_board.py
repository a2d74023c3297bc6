"""Memory that processes share: what is read is whole, whoever is killed while writing it."""

import os
import threading

from receipted.metrics.process import _COPY_BYTES, _COPY_HEADER, SharedSnapshots


def test_a_place_holds_what_was_written_last():
    board = SharedSnapshots(3)
    assert board.read(0) == b""
    for content in (b"first", b"second, longer", b"third"):
        assert board.write(1, content)
        assert board.read(1) == content
    assert board.write(2, b"other")
    assert list(board.others(1)) == [b"other"]
    assert list(board.others(0)) == [b"third", b"other"]


def test_what_is_too_large_leaves_what_was_there():
    board = SharedSnapshots(1)
    board.write(0, b"before")

    assert not board.write(0, b"x" * _COPY_BYTES)
    assert board.write(0, b"x" * (_COPY_BYTES - _COPY_HEADER.size))
    assert len(board.read(0)) == _COPY_BYTES - _COPY_HEADER.size


def test_a_copy_that_was_half_written_is_not_read():
    """As by kill -9: the one before it is whole."""
    board = SharedSnapshots(1)
    board.write(0, b"whole")
    board.write(0, b"newer")
    board._memory[_COPY_HEADER.size + _COPY_BYTES + 2] ^= 1  # within the second half, which holds the newer one

    assert board.read(0) == b"whole"
    assert board.write(0, b"again")
    assert board.read(0) == b"again"


def test_another_process_reads_only_what_is_whole():
    """A child writes without end; what is read meanwhile is always one of its contents."""
    board = SharedSnapshots(1)
    child = os.fork()
    if not child:
        number = 0
        while number < 20_000:
            number += 1
            board.write(0, b"%d" % (number % 10) * 5000)
        os._exit(0)
    seen, pause = set(), threading.Event()
    while not os.waitpid(child, os.WNOHANG)[0]:
        content = board.read(0)
        assert len(set(content)) <= 1
        seen.add(content[:1])
        pause.wait(0.0001)
    assert len(seen) > 2
