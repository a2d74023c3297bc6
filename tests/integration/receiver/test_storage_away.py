"""The database is locked, read-only, full, outdated or gone: the provider keeps the delivery and tries again."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event as on_event
from structlog.testing import capture_logs

from storage import connections, migrate
from tests.support.deliveries import event, sign
from tests.support.serving import Answered, Served, eventually, serving, settings, write_locked


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Served]:
    """The application, waiting for a lock only briefly."""
    monkeypatch.setattr(connections, "BUSY_SECONDS", 0.05)
    with serving(settings(tmp_path)) as running:
        yield running


@contextmanager
def locked(served: Served) -> Iterator[None]:
    with write_locked(served.file):
        yield


@contextmanager
def read_only(served: Served) -> Iterator[None]:
    with on_every_connection(served, "PRAGMA query_only = ON", "PRAGMA query_only = OFF"):
        yield


@contextmanager
def full(served: Served) -> Iterator[None]:
    with closing(sqlite3.connect(served.file)) as other:
        pages = other.execute("PRAGMA page_count").fetchone()[0]
    with on_every_connection(served, f"PRAGMA max_page_count = {pages}", "PRAGMA max_page_count = 1073741823"):
        yield


@contextmanager
def on_every_connection(served: Served, there: str, gone: str) -> Iterator[None]:
    """A pragma that lasts as long as a connection, on those that are open and those that will be."""
    state = [there]

    def configure(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(state[0])

    on_event.listen(served.database.engine, "checkout", configure)
    try:
        yield
    finally:
        state[0] = gone


AWAY: dict[str, Callable[[Served], AbstractContextManager[None]]] = {
    "locked": locked,
    "read-only": read_only,
    "full": full,
}
every_way = pytest.mark.parametrize("way", AWAY)


def assert_unavailable(answer: Answered, code: str = "storage_unavailable") -> None:
    assert (503, "api_error", code) == (answer.status, answer.error["type"], answer.error["code"])
    assert int(answer.headers["retry-after"]) > 0


@every_way
def test_a_delivery_is_answered_503_and_nothing_is_half_written(impatient: Served, way: str) -> None:
    """Afterwards everything works again, without a restart, and the redelivery is the first."""
    big = sign("sg", b"x" * 100_000)  # does not fit where a file cannot grow
    assert impatient.post(event("sg")).status == 200
    with AWAY[way](impatient):
        for _ in range(3):
            assert_unavailable(impatient.post(big))
        assert len(impatient.rows()) == 1
    assert impatient.post(big).status == 200
    assert [row.redeliveries for row in impatient.rows()] == [0, 0]
    with closing(sqlite3.connect(impatient.file)) as other:
        assert other.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@every_way
def test_a_rejected_delivery_that_cannot_be_kept_is_answered_503(impatient: Served, way: str) -> None:
    """A 401 would say that it is kept; a provider that is told 503 sends it again."""
    forged = sign("sg", b"x" * 100_000, secret="wrong-key-wrong-key")
    with AWAY[way](impatient):
        assert_unavailable(impatient.post(forged))
    assert impatient.post(forged).status == 401
    assert len(impatient.rejected("sg")) == 1


def test_a_return_is_answered_503_while_storage_is_away(impatient: Served) -> None:
    """The payer may try again; nothing was lost, since a return is only a hint."""
    token = impatient.service.tokens.issue("return", impatient.payment(return_url="https://shop.example/"))
    with locked(impatient):
        assert_unavailable(impatient.request("GET", f"/return/{token}"))
    assert impatient.request("GET", f"/return/{token}").status == 303


def test_every_delivery_of_a_batch_that_fails_is_answered_503(impatient: Served) -> None:
    """None of them is told 200, and all of them are recorded when they come again."""
    deliveries = [event("sg") for _ in range(40)]
    with ThreadPoolExecutor(20) as pool:
        with locked(impatient):
            assert {503} == {answer.status for answer in pool.map(impatient.post, deliveries)}
        assert impatient.rows() == []
        assert {200} == {answer.status for answer in pool.map(impatient.post, deliveries)}
    assert len(impatient.rows()) == 40


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write a file that is read-only")
def test_a_file_without_write_permission_is_answered_503(tmp_path: Path) -> None:
    """The file system's refusal is no bug of ours."""
    with serving(settings(tmp_path)) as running:
        Path(running.file).chmod(0o444)
        running.service.database.close()
        assert_unavailable(running.post(event("sg")))


def test_a_file_that_is_no_database_is_answered_503(tmp_path: Path) -> None:
    """A broken file is for an operator to mend; meanwhile the providers keep what they have to say."""
    (tmp_path / "receipted.db").write_bytes(b"this is no database, whatever it is" * 100)
    with serving(settings(tmp_path), migrated=False) as running:
        assert_unavailable(running.post(event("sg")))


def test_a_folder_that_is_gone_is_answered_503(tmp_path: Path) -> None:
    """A volume that is not mounted yet."""
    with serving(settings(tmp_path / "later"), migrated=False) as running:
        assert_unavailable(running.post(event("sg")))
        (tmp_path / "later").mkdir()
        migrate.upgrade(running.database)
        assert running.post(event("sg")).status == 200


def test_an_empty_database_is_answered_503_until_it_is_migrated(tmp_path: Path) -> None:
    """No restart is needed after `receipted migrate`."""
    with serving(settings(tmp_path), migrated=False) as running:
        assert_unavailable(running.post(event("sg")), "schema_outdated")
        migrate.upgrade(running.database)
        assert running.post(event("sg")).status == 200


def test_an_old_schema_is_answered_503(tmp_path: Path) -> None:
    """Even where the tables happen to take the row: a program must not write into a schema that it does not know."""
    with serving(settings(tmp_path)) as running:
        with closing(sqlite3.connect(running.file)) as other:
            (revision,) = other.execute("SELECT version_num FROM alembic_version").fetchone()
            other.execute("UPDATE alembic_version SET version_num = 'older'")
            other.commit()
        assert_unavailable(running.post(event("sg")), "schema_outdated")
        assert running.rows() == []
        with closing(sqlite3.connect(running.file)) as other:
            other.execute("UPDATE alembic_version SET version_num = ?", (revision,))
            other.commit()
        assert running.post(event("sg")).status == 200


def test_a_full_intake_is_answered_503(tmp_path: Path) -> None:
    """What a process holds without having committed it is bounded; the rest stays with the providers."""
    with serving(settings(tmp_path, intake_queue=3)) as running, ThreadPoolExecutor(20) as pool:
        with locked(running):
            first = pool.submit(running.post, event("sg"))
            running.until_waiting(0)
            others = [pool.submit(running.post, event("sg")) for _ in range(13)]
            # three fit behind the one that is being committed
            eventually(lambda: sum(other.done() for other in others) == 10)
            refused = [other.result() for other in others if other.done()]
        assert first.result().status == 200
        for answer in refused:
            assert_unavailable(answer, "intake_full")
        assert [other.result().status for other in others if other.result().status != 503] == [200] * 3
        assert len(running.rows()) == 4


def test_what_the_database_said_is_logged_without_what_was_delivered(impatient: Served) -> None:
    """The operator sees why; nobody sees a payload."""
    with capture_logs() as logged, locked(impatient):
        impatient.post(sign("sg", b"the-content-of-a-delivery"))
    (entry,) = [entry for entry in logged if entry["event"] == "storage.unavailable"]
    assert "locked" in entry["error"]
    assert "the-content-of-a-delivery" not in str(logged)
