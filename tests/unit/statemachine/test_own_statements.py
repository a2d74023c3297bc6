"""Statements of our own: the same bytes for the same statement, and nothing else is taken for one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statemachine import own_statements as ours

STATEMENTS = st.one_of(
    st.builds(ours.CreateWanted, st.text(), st.text(), st.integers(), st.text(), st.none() | st.text()),
    st.builds(ours.CallFailed, st.text(), st.text(), st.text(), st.none() | st.integers(), st.booleans()),
    st.builds(ours.Resolution, st.text(), st.text(), st.text()),
    st.builds(ours.GaveUp, st.text(), st.text()),
    st.builds(
        ours.AccountAlarm,
        st.text(),
        st.text(),
        st.booleans(),
        st.text(),
        st.dictionaries(st.text(), st.none() | st.integers() | st.floats(allow_nan=False) | st.text()),
    ),
)


@given(STATEMENTS)
def test_there_and_back(statement):
    """A statement is what its bytes say, and its bytes are always the same."""
    assert ours.decode(ours.encode(statement)) == statement
    assert ours.encode(ours.decode(ours.encode(statement))) == ours.encode(statement)


@given(st.binary() | st.sampled_from([b"[]", b"1", b'{"statement":"Nothing"}', b'{"statement":"GaveUp"}', b"{}"]))
def test_other_bytes_are_unreadable(body):
    """Any other bytes raise UnreadableStatement and nothing else."""
    with pytest.raises(ours.UnreadableStatement):
        ours.decode(body)


@pytest.mark.parametrize("body", [b'{"statement":[]}', b'{"statement":{}}', b"[" * 100_000, b'{"statement":"\\ud800"}'])
def test_hostile_bytes_are_unreadable(body):
    """Nested, unhashable or broken content is no statement either."""
    with pytest.raises(ours.UnreadableStatement):
        ours.decode(body)
