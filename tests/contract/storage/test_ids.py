"""Whoever asks for what cannot be an id is told that there is no such thing, on both databases alike."""

import pytest

from storage import api_keys, inbox, outbox, payments, reconciliations
from storage.errors import NotFound
from storage.ids import is_id, new_id
from tests.support.clock import START

NONE = (
    "nonsense",
    "",
    "\x00",
    "\ud800",
    "x" * 300,
    "%",
    "0" * 31,
    "0" * 33,
    f"{{{new_id()}}}",
    f"{new_id()}\n",
    "１" * 32,
)


@pytest.mark.parametrize("get", [module.get for module in (payments, inbox, outbox, reconciliations, api_keys)])
def test_what_is_no_id_is_not_found(database, get):
    """A text from outside is never an error of the database."""
    for text in (*NONE, new_id(), new_id().replace("-", "").upper()):
        with pytest.raises(NotFound), database.read() as unit:
            get(unit, text)


def test_what_is_no_id_is_not_changed(database):
    """Nor where something is to be done to it."""
    for change in (outbox.redrive, inbox.replay, api_keys.revoke):
        for text in (*NONE, new_id()):
            with pytest.raises(NotFound), database.write() as unit:
                change(unit, text, START)


def test_our_ids_are_ids():
    """What we call an id, we take for one; and none of the others."""
    assert all(is_id(new_id()) for _ in range(100))
    assert not any(is_id(text) for text in NONE)
