"""Compares what the tables declare with what the migrations have made."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from storage.database import Database
from storage.partitions import NAMES
from storage.schema import metadata


def drift(database: Database) -> list[str]:
    """What the tables declare and the migrated database lacks, or the other way round; empty where they agree.

    Partitions are made and detached in the course of time, and are no difference.
    """
    with database.engine.connect() as connection:

        def is_declared(_item: object, name: str | None, kind: str, _reflected: bool, _against: object) -> bool:
            return kind != "table" or NAMES.fullmatch(name or "") is None

        context = MigrationContext.configure(connection, opts={"include_object": is_declared})
        return [str(difference) for difference in compare_metadata(context, metadata)]
