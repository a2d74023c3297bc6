"""What retention would do and did, as an operator sees it; and what a deployment learns of pending migrations."""

from datetime import timedelta

from receipted.cli.exits import Exit
from storage import inbox, migrate
from storage.ids import first_id, instant_of, new_id
from tests.integration.cli.conftest import Shell
from tests.support import keeping
from tests.support.builders import a_message
from tests.support.settings_file import write_settings

RULES = """
[retention]
bodies_after_days = 10
inbox_after_days = 30
"""


def decided_long_ago(service, count):
    """Messages of twenty days ago that were about nobody's payment."""
    then = instant_of(new_id()) - timedelta(days=20)
    with service.database.write() as unit:
        ids = [f"{first_id(then + timedelta(seconds=n))[:14]}7000-8000-000000000001" for n in range(count)]
        inbox.record(unit, [a_message(message_id=row_id, received_at=then) for row_id in ids])
        for message in inbox.claim(unit, service.clock(), timedelta(seconds=60), count):
            message.status, message.decided_at = "decided", then
            keeping.decide(unit, [message])


def test_without_a_setting_nothing_is_thrown_away(shell):
    """It says so, and --run does nothing."""
    assert "nothing is thrown away" in shell("retention").out
    assert shell("retention", "--run", "--json").json == {"plan": [], "runs": []}


def test_it_runs_and_says_what_it_did(tmp_path):
    """The plan, the run with who wanted it, and the audit that counts what is gone."""
    shell = Shell(write_settings(tmp_path, extra=RULES)).migrated()
    service = shell.service()
    decided_long_ago(service, 3)
    plan = shell("retention", "--json").json["plan"]
    assert [(each["rule"], each["is_possible"], each["last"]) for each in plan] == [
        ("bodies", True, None),
        ("inbox", False, None),
    ]

    told = shell("retention", "--run", "--by", "Ada L.")
    (run,) = shell("retention", "--json").json["runs"]
    service.close()

    assert (run["rule"], run["rows"], run["asked_by"], run["status"]) == ("bodies", 3, "Ada L.", "done")
    assert "only PostgreSQL has partitions" in told.out
    assert "Ada L." in told.out
    verified = shell("audit", "verify")
    assert "3 bodies are gone by a rule of retention" in verified.out
    assert "everything holds" in verified.out


def test_a_deployment_learns_what_is_pending(empty):
    """Exit code 3 and the migrations in order, each with whether it runs beside the service; 0 and nothing after."""
    pending = empty("migrate", "--check", "--json", code=Exit.SCHEMA).json
    shown = empty("migrate", "--check", code=Exit.SCHEMA)

    assert pending["revision"] is None
    assert pending["needed"] == pending["pending"][-1]["revision"] == migrate.newest()
    assert not any(each["is_online"] for each in pending["pending"])
    assert shown.out.startswith("0010: stop the service first. The first schema.")
    assert "run receipted migrate (schema_outdated)" in shown.err
    empty("migrate")
    assert empty("migrate", "--check", "--json").json["pending"] == []
    assert "has the newest schema" in empty("migrate", "--check").out


def test_on_postgresql_migrating_makes_the_coming_partitions(postgresql, tmp_path):
    """At once, so that the first delivery finds its own."""
    path = write_settings(tmp_path)
    url = postgresql.url_of(postgresql.empty())
    sqlite = next(line for line in path.read_text().splitlines() if line.startswith("database"))
    path.write_text(path.read_text().replace(sqlite, f'database = "{url}"'))
    shell = Shell(path)
    service = shell.service()

    shell("migrate")
    with service.database.engine.connect() as connection:
        count = connection.exec_driver_sql(
            "SELECT count(*) FROM pg_class WHERE relname ~ '^inbox_message_p[0-9]+$'"
        ).scalar_one()
    postgresql.drop(service.database)
    assert count == 4
