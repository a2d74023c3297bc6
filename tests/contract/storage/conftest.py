"""One fixture for every kind of database under the storage contract; another kind is another parameter."""

from pathlib import Path

import pytest

from storage import migrate
from tests.support.databases import migrated


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request):
    """An empty migrated database of the kind."""
    with migrated(request) as opened:
        yield opened


@pytest.fixture
def again(database):
    """A second connection pool to the same database, as another process would have."""
    other = type(database)(database.url)
    yield other
    other.close()


@pytest.fixture
def second_migration(monkeypatch):
    """A program that has one more revision than this one."""
    folder = Path(__file__).parent / "second_migration"
    monkeypatch.setattr(migrate, "VERSION_FOLDERS", [*migrate.VERSION_FOLDERS, folder])
