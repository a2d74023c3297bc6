import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.errors import BodyTooLarge, BodyTooSlow, ClientGone
from receiver.http import read_body

LIMIT = 40
pieces = st.lists(st.binary(max_size=30), max_size=12)


class Client:
    """Sends its pieces; remembers how much of them was taken."""

    def __init__(self, chunks, *, ends="complete", says_more=True):
        self.taken = []
        self._chunks = list(chunks)
        self._ends = ends
        self._says_more = says_more

    async def receive(self):
        if not self._chunks:
            if self._ends == "leaves":
                return {"type": "http.disconnect"}
            if self._ends == "waits":
                await asyncio.Event().wait()
            return {"type": "http.request"}
        chunk = self._chunks.pop(0)
        self.taken.append(chunk)
        is_last = not self._chunks and self._ends == "complete" and not self._says_more
        return {"type": "http.request", "body": chunk, "more_body": not is_last}


def read(client, *headers, seconds=5.0):
    return asyncio.run(read_body({"headers": list(headers)}, client.receive, at_most=LIMIT, seconds=seconds))


@given(pieces, st.booleans())
def test_a_body_is_its_pieces_or_too_large(chunks, says_more):
    """However it is cut, the bytes are the same; beyond the limit nothing more than one piece is taken."""
    whole = b"".join(chunks)
    client = Client(chunks, says_more=says_more)
    if len(whole) <= LIMIT:
        assert whole == read(client)
        return
    with pytest.raises(BodyTooLarge):
        read(client)
    assert len(b"".join(client.taken[:-1])) <= LIMIT


@given(pieces)
def test_a_body_whose_client_leaves_is_none(chunks):
    """Half a body is never taken for a whole one."""
    with pytest.raises((ClientGone, BodyTooLarge)):
        read(Client(chunks, ends="leaves"))


def test_a_body_that_does_not_end_is_too_slow():
    """The time is for the whole body."""
    with pytest.raises(BodyTooSlow):
        read(Client([b"x", b"y"], ends="waits"), seconds=0.01)


@pytest.mark.parametrize("length", [b"41", b"99999999999999999999999999", b"041"])
def test_a_length_beyond_the_limit_is_refused_unread(length):
    """Before the first piece."""
    client = Client([b"x"])
    with pytest.raises(BodyTooLarge):
        read(client, (b"content-length", length))
    assert client.taken == []


@pytest.mark.parametrize("length", [b"40", b"0", b"-5", b"many", b"", b"\xb2"])
def test_a_length_within_the_limit_or_none_is_not_believed(length):
    """What counts is what comes."""
    assert read(Client([b"x" * LIMIT]), (b"content-length", length)) == b"x" * LIMIT
    with pytest.raises(BodyTooLarge):
        read(Client([b"x" * LIMIT, b"x"]), (b"content-length", length))
