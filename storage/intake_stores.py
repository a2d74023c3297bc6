"""Which store takes arrivals: that of the database, with its own driver."""

from storage.database import Database
from storage.intake import Store


def store_for(database: Database) -> Store:
    """Create the store of this database.

    Raises DatabaseUnsupported where its driver is not installed.
    """
    if database.engine.dialect.name == "sqlite":
        from storage.intake_sqlite import SqliteStore  # noqa: PLC0415 - the other database needs no sqlite3

        return SqliteStore(database)
    from storage.intake_postgresql import PostgresqlStore  # noqa: PLC0415 - its driver is an extra

    return PostgresqlStore(database)
