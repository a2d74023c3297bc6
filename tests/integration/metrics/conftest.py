"""The database that figures and probes are read from."""

from collections.abc import Iterator

import pytest

from storage.database import Database
from tests.support.databases import PostgreSQL


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated database of each kind."""
    if request.param == "sqlite":
        yield request.getfixturevalue("database")
        return
    server: PostgreSQL = request.getfixturevalue("postgresql")
    opened = server.cleaned()
    yield opened
    opened.close()
