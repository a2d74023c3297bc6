"""Whatever a server, a database, a role or a PG* variable sets: what comes is recorded, decided and delivered."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from sqlalchemy import make_url

from receipted.cli.exits import exit_code
from storage import migrate
from storage.asyncpg_connection import connect
from storage.connections import session_of
from storage.database import Database
from storage.errors import DatabaseUnsupported
from tests.integration.test_duties import delivered
from tests.support.databases import PostgreSQL
from tests.support.deliveries import event
from tests.support.serving import eventually, serving, settings

#: For each of ours, what is furthest from it.
HOSTILE = {
    "synchronous_commit": "off",
    "client_min_messages": "error",
    "lock_timeout": "1ms",
    "statement_timeout": "1",
    "transaction_timeout": "1",
    "idle_in_transaction_session_timeout": "1ms",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "client_encoding": "SQL_ASCII",
    "timezone": "Asia/Kolkata",
    "datestyle": "German, DMY",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "array_nulls": "off",
    "standard_conforming_strings": "off",
    "quote_all_identifiers": "on",
    "transform_null_equals": "on",
    "exit_on_error": "on",
    "enable_seqscan": "on",
}
#: Of the server of the tests, which is a new one.
OURS = session_of(18)
#: What nobody may set for us: a database that takes no writes is told as that, and whoever makes triggers sleep is a
#: superuser. The others are of the transaction, and no default.
LEFT = {
    *("default_transaction_read_only", "session_replication_role", "role", "session_authorization"),
    *("transaction_read_only", "transaction_isolation", "transaction_deferrable", "is_superuser"),
    "wal_consistency_checking",
}


@pytest.fixture
def database(postgresql: PostgreSQL) -> Iterator[Database]:
    opened = postgresql.copy()
    yield opened
    postgresql.drop(opened)


def shown(database: Database, name: str) -> str:
    with database.write() as unit:
        return str(unit.execute(sa.text(f"SHOW {name}")).scalar())


async def shown_to_asyncpg(url: str, names: list[str]) -> dict[str, str]:
    connection = await connect(url)
    try:
        return {name: await connection.fetchval(f"SHOW {name}") for name in names}
    finally:
        connection.terminate()


async def asked_of_asyncpg(url: str, query: str) -> list[tuple[str, str]]:
    connection = await connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        connection.terminate()


def set_for(postgresql: PostgreSQL, database: Database, values: dict[str, str]) -> None:
    name = make_url(database.url).database
    for setting, value in values.items():
        postgresql.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")


def deliver_all(tmp_path: Path, database: Database) -> None:
    """One delivery of each account, by the whole application, to its handler."""
    delivered.clear()
    config = settings(tmp_path, tick=0.01, handler="tests.integration.test_duties:take", database=database.url)
    with serving(config, migrated=False, with_work=True) as served:
        for account in ("sg", "pf"):
            assert served.deliver(event(account)).status == 200
        eventually(lambda: delivered == ["payment.paid"])
        eventually(lambda: {row.status for row in served.rows()} == {"decided"})


def test_every_setting_of_ours_has_a_hostile_default_here() -> None:
    assert HOSTILE.keys() == OURS.keys()


def test_both_drivers_set_what_they_read_and_write_by(database: Database, postgresql: PostgreSQL) -> None:
    """By name and value, on each connection."""
    ours = {name: shown(database, name) for name in OURS}
    set_for(postgresql, database, HOSTILE)
    fresh = Database(database.url)
    assert {name: shown(fresh, name) for name in OURS} == ours
    fresh.close()
    assert asyncio.run(shown_to_asyncpg(database.url, list(OURS))) == ours


def test_no_statement_runs_by_the_defaults(database: Database, postgresql: PostgreSQL) -> None:
    """A timeout among them ends the very statement that would set another: each of ours comes with the connection."""
    set_for(postgresql, database, HOSTILE)
    query = "SELECT name, source FROM pg_settings WHERE source IN ('client', 'session', 'database')"
    with database.read() as unit:
        found = {row.name.lower(): row.source for row in unit.execute(sa.text(query))}
    assert {name: found[name] for name in OURS} == dict.fromkeys(OURS, "client")
    found = {name.lower(): source for name, source in asyncio.run(asked_of_asyncpg(database.url, query))}
    assert {name: found[name] for name in OURS} == dict.fromkeys(OURS, "client")


def test_options_of_the_operator_stand_beside_ours(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the URL, and of PGOPTIONS where it has none; what is ours cannot be set by them."""
    monkeypatch.setenv("PGOPTIONS", "-c search_path=elsewhere,public -c bytea_output=escape")
    fresh = Database(database.url)
    assert shown(fresh, "search_path") == "elsewhere,public"
    assert shown(fresh, "bytea_output") == "hex"
    fresh.close()
    own = quote("-c search_path=here,public -c datestyle=German")
    fresh = Database(f"{database.url}{'&' if '?' in database.url else '?'}options={own}")
    assert shown(fresh, "search_path") == "here,public"
    assert shown(fresh, "datestyle") == "ISO, YMD"
    fresh.close()


def test_hostile_defaults_of_the_database_stop_nothing(
    database: Database, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    set_for(postgresql, database, HOSTILE)
    deliver_all(tmp_path, database)


def test_hostile_variables_of_the_process_stop_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "PGDATESTYLE": "German",
        "PGTZ": "Asia/Kolkata",
        "PGCLIENTENCODING": "LATIN1",
        "PGOPTIONS": "-c intervalstyle=iso_8601 -c array_nulls=off -c bytea_output=escape",
    }.items():
        monkeypatch.setenv(name, value)
    deliver_all(tmp_path, database)


def test_any_other_setting_may_be_as_it_likes(database: Database, postgresql: PostgreSQL, tmp_path: Path) -> None:
    """All that a role may set which is on, off or one of a few words, the other way round, all at once."""
    query = (
        "SELECT name, vartype, setting, enumvals FROM pg_settings "
        "WHERE context IN ('user', 'superuser') AND vartype IN ('bool', 'enum')"
    )
    with database.read() as unit:
        found = [tuple(row) for row in unit.execute(sa.text(query))]
    changed = {}
    for name, kind, value, words in found:
        if name.lower() in OURS or name in LEFT or name.startswith(("log_", "debug_", "trace_")):
            continue
        others = ["off" if value == "on" else "on"] if kind == "bool" else [word for word in words if word != value]
        if others:
            changed[name] = others[-1]
    assert len(changed) > 30
    set_for(postgresql, database, changed)
    deliver_all(tmp_path, database)


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_database_of_another_encoding_is_refused_in_words(postgresql: PostgreSQL, encoding: str) -> None:
    """By migrate and at start, in one line; nothing is made in it."""
    name = f"odd_{encoding.lower()}"
    postgresql.execute(
        f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' "
        "TEMPLATE template0 STRATEGY file_copy"
    )
    odd = Database(postgresql.url_of(name))
    try:
        for refused in (migrate.upgrade, migrate.check):
            with pytest.raises(DatabaseUnsupported, match=rf"encoding is {encoding}, and must be UTF8") as fault:
                refused(odd)
            assert "\n" not in fault.value.message
            assert exit_code(fault.value) == 1
        with odd.read() as unit:
            assert unit.execute(sa.text("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")).scalar() == 0
    finally:
        postgresql.drop(odd)
