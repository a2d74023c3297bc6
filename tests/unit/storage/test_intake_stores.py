import sys

import pytest

from storage.database import Database
from storage.errors import DatabaseUnsupported
from storage.intake_stores import store_for


@pytest.fixture
def database():
    opened = Database("postgresql://user@127.0.0.1:9/name")
    yield opened
    opened.close()


def test_without_its_driver_receiving_on_postgresql_is_refused(database, monkeypatch):
    """At the start and not with the first delivery, with what is to be installed."""
    for name in ("asyncpg", "storage.intake_postgresql", "storage.asyncpg_connection"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(DatabaseUnsupported, match="install receipted with the extra postgres"):
        store_for(database)


def test_a_url_beyond_the_driver_is_refused():
    """At the start too; without a word of the URL's secrets."""
    database = Database("postgresql://user:secret-of-ours@127.0.0.1:9/name?requirepeer=postgres")
    with pytest.raises(DatabaseUnsupported, match="requirepeer") as refused:
        store_for(database)
    assert "secret-of-ours" not in str(refused.value)
    database.close()
