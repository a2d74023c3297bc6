"""One fixture for every kind of database under the storage contract; another kind is another parameter."""

import pytest

from tests.fakes.databases import copy_of


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, template, tmp_path):
    """An empty migrated database of the kind."""
    if request.param == "sqlite":
        opened = copy_of(template, tmp_path / "contract.db")
        yield opened
        opened.close()
        return
    server = request.getfixturevalue("postgresql")
    opened = server.copy()
    yield opened
    server.drop(opened)


@pytest.fixture
def again(database):
    """A second connection pool to the same database, as another process would have."""
    other = type(database)(database.url)
    yield other
    other.close()
