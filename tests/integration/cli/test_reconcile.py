"""Catching up with the sandbox's providers over real HTTP, as an operator types it and as the worker does it."""

import asyncio
import csv
import io
import itertools
import json
import signal
import threading
import time
from datetime import timedelta
from types import SimpleNamespace

import httpx2
import pytest
from structlog.testing import capture_logs

from poller import circuit_breaker, reconciliation
from providers import api_calls
from receipted.cli.exits import Exit
from receipted.cli.reconciliations import COLUMNS
from receipted.reconciler_wiring import reconciler, scheduled_steps
from sandbox.config import AlternativePayments, SandboxConfig, StableGenius
from sandbox.server import running
from storage import outbox, reconciliations
from storage.reconciliations import ReconciliationRequest
from tests.support.at_the_sandbox import act
from tests.support.processes import started
from tests.support.settings_file import write_settings

from .conftest import Shell
from .test_payments import PROVIDERS, create, pay

numbers = itertools.count(1)
INTENT = {"amount": 4.50, "currency": "usd", "merchant_id": "mer_sandbox", "ttl": 3600}
RANGE = ("--since", "1h")


@pytest.fixture
def played(tmp_path):
    """A sandbox of the test's own, and settings with an account at each of its providers."""
    config = SandboxConfig(
        alternative_payments=AlternativePayments(requests_per_second=10_000),
        stable_genius=StableGenius(test_requests_per_minute=10_000),
    )
    with running(config) as found:
        shell = Shell(write_settings(tmp_path, found.base_url)).migrated()
        yield SimpleNamespace(url=found.base_url, shell=shell)


def elsewhere(url, provider, kind, *bodies):
    """The refs of what the merchant's other systems have created."""
    made = httpx2.post(f"{url}/_control/create", json={"provider": provider, "kind": kind, "bodies": bodies})
    assert made.status_code == 200, made.text
    return made.json()["refs"]


def faults(url, **changed):
    assert httpx2.put(f"{url}/_control/faults", json=changed).status_code == 200


def quick(monkeypatch):
    """Waits are too short to be waited for."""
    monkeypatch.setattr(reconciliation, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(circuit_breaker, "_FIRST_WAIT", timedelta(milliseconds=10))
    monkeypatch.setattr(api_calls, "_PAUSE_ON_429", 0.01)


def rows_of(shell):
    service = shell.service()
    with service.database.read() as unit:
        found = reconciliations.find(unit)
    service.close()
    return found


def test_payments_that_were_never_heard_of_are_adopted(played):
    """Three pages of a real list: what was paid is owed, what is open is asked about from now on."""
    refs = elsewhere(played.url, "stable_genius", "payment_intent", *[INTENT] * 230)
    act(played.url, "stable_genius", "payment_intent", refs[7], "pay")

    report = played.shell("reconcile", "stable", *RANGE, "--json").json

    assert (report["status"], report["pages"], report["listed"], report["asked"]) == ("done", 3, 230, 0)
    assert {entry["provider_ref"] for entry in report["drift"]} == set(refs)
    assert all(entry["is_adopted"] and entry["found_by"] == "list" for entry in report["drift"])
    (paid,) = [entry for entry in report["drift"] if entry["is"] == "confirmed"]
    assert (paid["provider_ref"], paid["effects"], paid["since"] is not None) == (refs[7], ["payment.paid"], True)
    (owed,) = played.shell("outbox", "list", "--json").json
    assert (owed["effect"], owed["payment_id"]) == ("payment.paid", paid["payment"])
    assert "everything holds" in played.shell("audit", "verify").out


@pytest.mark.parametrize("account", PROVIDERS)
def test_lost_webhooks_are_found_and_a_second_walk_finds_nothing(played, account):
    """No endpoint was registered, so nothing was told; each effect is owed once, however often we look."""
    paid, left = (create(played.shell, account, "--json").json for _ in range(2))
    pay(played.url, account, paid)

    report = played.shell("reconcile", account, *RANGE, "--json").json

    (entry,) = report["drift"]
    assert (entry["payment"], entry["was"], entry["is"]) == (paid["id"], paid["state"], PROVIDERS[account][3])
    assert (entry["effects"], entry["is_adopted"], entry["is_fresh"]) == (["payment.paid"], False, True)
    assert report["counts"]["unchanged"] >= 1
    again = played.shell("reconcile", account, *RANGE, "--json").json
    assert (again["drift"], again["id"] != report["id"]) == ([], True)
    assert [owed["effect"] for owed in played.shell("outbox", "list", "--json").json] == ["payment.paid"]
    assert played.shell("payments", "show", left["id"], "--json").json["payment"]["state"] == left["state"]


def test_the_report_as_text_json_and_csv(played):
    """The same report three times, printed at once or later; nothing of a body or a secret is in it."""
    payment = create(played.shell, "stable", "--json", reference="order 1").json
    pay(played.url, "stable", payment)
    elsewhere(played.url, "stable_genius", "payment_intent", {**INTENT, "metadata": {"reference": '=HYPERLINK("x")'}})

    text = played.shell("reconcile", "stable", *RANGE, "--by", "Ada L.").out
    (listed,) = played.shell("reconciliations", "list", "--json").json
    shown = played.shell("reconciliations", "show", listed["id"][-12:], "--json").json
    table = played.shell("reconciliations", "show", listed["id"], "--format", "csv").out

    assert "Drift: 2 payments, 1 not known before" in text
    assert payment["id"][-12:] in text
    assert "confirmed" in text
    assert "payment.paid" in text
    assert (listed["asked_by"], listed["counts"]["drift"], "drift" in listed) == ("Ada L.", 2, False)
    entries = list(csv.DictReader(io.StringIO(table)))
    assert list(entries[0]) == list(COLUMNS)
    assert [entry["payment"] for entry in entries] == [entry["payment"] for entry in shown["drift"]]
    assert {entry["reference"] for entry in entries} == {"order 1", '\'=HYPERLINK("x")'}
    assert [list(entry) for entry in shown["drift"]] == [list(COLUMNS)] * 2
    assert "Drift" in played.shell("reconciliations", "list").out
    assert all("sk_test" not in printed for printed in (text, json.dumps(shown), table))


def test_nothing_different_is_said_in_words(played):
    """And that no list could be walked through, so that nobody was looked for whom we do not know."""
    create(played.shell, "payfield")
    said = played.shell("reconcile", "payfield").out

    assert "no drift" in said
    assert "no call that lists payments (unsupported_by_provider)" in said


def test_what_could_not_be_asked_is_told(played):
    """The provider has forgotten one: it is named with the reason, and the walk is done."""
    create(played.shell, "payfield", "--json")
    gone = create(played.shell, "payfield", "--json").json
    service = played.shell.service()
    with service.database.engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE payment SET provider_ref = 'nowhere' WHERE reference = ?", (gone["reference"],)
        )
    service.close()

    typed = played.shell("reconcile", "payfield", "--json").json
    assert (typed["asked"], typed["failed"]) == (1, 1)
    assert [entry["provider_ref"] for entry in typed["unasked"]] == [None, "nowhere"]
    shown = played.shell("reconciliations", "show", typed["id"]).out
    assert "Not asked or not answered: 1" in shown
    assert "nowhere" in shown


@pytest.mark.parametrize("fault", ["api_429", "api_500", "api_502_503_504"])
def test_errors_in_the_middle_lose_nothing(played, fault, monkeypatch):
    """A third of the calls fail: the report is the same as without."""
    quick(monkeypatch)
    refs = elsewhere(played.url, "stable_genius", "payment_intent", *[INTENT] * 110)
    own = [create(played.shell, "payfield-old", "--json").json for _ in range(3)]
    for payment in own[:2]:
        pay(played.url, "payfield-old", payment)
    faults(played.url, **{fault: 0.3})

    listed = walk_to_the_end(played.shell, "stable")
    asked = walk_to_the_end(played.shell, "payfield-old")

    assert {entry["provider_ref"] for entry in listed["drift"]} == set(refs)
    assert sorted(entry["payment"] for entry in asked["drift"]) == sorted(payment["id"] for payment in own[:2])


def walk_to_the_end(shell, account):
    """The report, after as many runs as it takes; failed questions of one run are asked again by the next walk."""
    drift = []
    for _ in range(20):
        typed = shell("reconcile", account, *RANGE, "--json", code=None)
        if typed.code == Exit.DONE:
            drift += typed.json["drift"]
            if not typed.json["failed"]:
                return typed.json | {"drift": drift}
        else:
            assert typed.json["error"]["code"] == "reconciliation_paused"
    raise AssertionError("it does not come to an end")


def test_a_provider_that_is_away_leaves_it_unfinished(played, monkeypatch):
    """The command fails with a clear word and the command to go on with; that one says where it goes on."""
    quick(monkeypatch)
    payment = create(played.shell, "payfield", "--json").json
    for _ in range(7):
        create(played.shell, "payfield")
    pay(played.url, "payfield", payment)
    faults(played.url, api_500=1.0)

    failed = played.shell("reconcile", "payfield", "--by", "Ada L.", code=Exit.FAILED)
    assert "resume with: receipted reconcile payfield" in failed.err
    assert "(reconciliation_paused)" in failed.err
    assert "running" in played.shell("reconciliations", "list").out

    faults(played.url, api_500=0.0)
    resumed = played.shell("reconcile", "payfield", "--since", "5h")
    assert "resuming what Ada L. began at" in resumed.err
    assert "--new" in resumed.err
    assert "Drift: 1 payment," in resumed.out
    assert [row.status for row in rows_of(played.shell)] == ["done"]


def test_another_one_is_begun_when_that_is_wanted(played, monkeypatch):
    quick(monkeypatch)
    for _ in range(6):
        create(played.shell, "payfield")
    faults(played.url, api_500=1.0)
    played.shell("reconcile", "payfield", code=Exit.FAILED)
    faults(played.url, api_500=0.0)

    played.shell("reconcile", "payfield", "--new")

    assert [row.status for row in rows_of(played.shell)] == ["done", "failed"]


def test_a_second_walker_is_told_who_and_since_when(played):
    service = played.shell.service()
    now = service.clock()
    with service.database.write() as unit:
        wanted = ReconciliationRequest("stable", now - timedelta(hours=1), now, "Ada L.")
        row = reconciliations.begin(unit, wanted, "process 7 on elsewhere", now, timedelta(minutes=1))
    service.close()

    for more in ((), ("--new",)):
        typed = played.shell("reconcile", "stable", *more, code=Exit.FAILED)
        assert f"process 7 on elsewhere has been reconciling stable since {row.held_at:%Y-%m-%d %H:%M:%SZ}" in typed.err


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("nobody",), Exit.NOT_FOUND, "no account 'nobody'"),
        (("stable", "--since", "yesterday"), Exit.USAGE, "--since takes a moment such as 2026-11-01"),
        (("stable", "--since", "2030-01-01"), Exit.USAGE, "--since must lie before --until"),
        (("stable", "--since", "1d", "--until", "2d"), Exit.USAGE, "--since must lie before --until"),
        (("stable", "--until", "0001-01-01"), Exit.USAGE, "--until lies too far back"),
        (("stable", "--since", "999999w"), Exit.USAGE, "--since takes a moment"),
        (("stable", "--format", "xml"), Exit.USAGE, "Invalid value for '--format'"),
    ],
)
def test_wrong_usage_is_one_clear_line(shell, args, code, said):
    assert said in shell("reconcile", *args, code=code).err
    assert rows_of(shell) == []


def test_the_budget_holds_while_the_rest_is_asked_about(tmp_path):
    """At the sandbox's enforced 5 requests per second no 429 is seen, with several questions under way at once."""
    with running(SandboxConfig()) as found:
        shell = Shell(write_settings(tmp_path, found.base_url)).migrated()
        for _ in range(5):
            create(shell, "alternative")

        report = shell("reconcile", "alternative", "--json").json

        assert (report["asked"], report["failed"]) == (5, 0)
        counts = httpx2.get(f"{found.base_url}/_control/counts").json()
    assert not any(counts["rate_limited"].values())


def test_the_worker_reconciles_by_itself_and_alarms(played):
    """A day later, without anybody asking: the report is kept, the log says it, and every sink is owed the alarm."""
    payment = create(played.shell, "stable", "--json").json
    pay(played.url, "stable", payment)
    service = played.shell.service()
    present = service.clock

    async def day_by_day():
        async with service.clients() as clients:
            steps = scheduled_steps(service, clients)
            assert set(steps) == set(service.accounts)
            first = await steps["stable"]()
            service_is_a_day_ahead.append(True)
            return first, await steps["stable"](), await steps["stable"]()

    service_is_a_day_ahead = []
    service.clock = lambda: present() + timedelta(days=len(service_is_a_day_ahead))
    with capture_logs() as logs:
        done = asyncio.run(day_by_day())
        while service.inbox_worker().step():
            pass
    with service.database.read() as unit:
        owed = [(one.effect, one.sink) for one in outbox.of_accounts(unit)]
    service.close()

    assert done == (0, 1, 0)
    assert [entry["drift"] for entry in logs if entry["event"] == "reconcile.drift"] == [1]
    assert owed == [("account.drift", "shop")]
    (row,) = rows_of(played.shell)
    assert (row.asked_by, row.status, row.counts["fresh"]) == ("schedule", "done", 0)


def test_no_schedule_where_the_settings_want_none(tmp_path):
    shell = Shell(write_settings(tmp_path, extra="[reconciliation]\nevery_seconds = 0\n"))
    service = shell.service()

    assert scheduled_steps(service, dict.fromkeys(service.accounts)) == {}
    service.close()


def test_a_walk_says_how_far_it_is(played):
    """What the bar shows: pages, then questions of so many."""
    create(played.shell, "payfield")
    service = played.shell.service()
    seen = []

    async def walked():
        async with service.clients() as clients:
            walker, now = reconciler(service, clients), service.clock()
            started = walker.start(ReconciliationRequest("payfield", now - timedelta(hours=1), now, "a test"))
            await walker.run(started.row, lambda row: seen.append((row.stage, row.asked, row.to_ask)))

    asyncio.run(walked())
    service.close()
    assert seen == [("asking", 0, 0), ("asking", 0, 1), ("asking", 1, 1), ("asking", 1, 1)]


def until(condition, seconds=30):
    """What the condition gives as soon as it is true."""
    give_up_at, pause = time.monotonic() + seconds, threading.Event()
    while not (found := condition()):
        assert time.monotonic() < give_up_at, "it did not come to that"
        pause.wait(0.02)  # of another process, which sets no event here
    return found


#: Four are asked about at once, so that after the first answers there are seconds to stop the process in.
ASKED_IN_PARTS, SLOW_S = 12, 2.0


def asked_so_far(shell):
    return next((row for row in rows_of(shell) if row.asked), None)


def test_ctrl_c_leaves_it_as_it_is_and_says_how_to_go_on(played, tmp_path):
    """The lease is given back at once, and the next run asks only what was not answered."""
    for _ in range(ASKED_IN_PARTS):
        create(played.shell, "payfield")
    faults(played.url, api_slow=1.0, api_slow_seconds=SLOW_S)
    errors = tmp_path / "errors.txt"

    with started("--config", str(played.shell.config), "reconcile", "payfield", errors=errors) as process:
        until(lambda: asked_so_far(played.shell))
        assert process.stop(signal.SIGINT) == Exit.INTERRUPTED
    said = errors.read_text()
    assert "resume with: receipted reconcile payfield" in said
    assert "Traceback" not in said
    (row,) = rows_of(played.shell)
    assert row.status == "running"
    assert 0 < row.asked < ASKED_IN_PARTS

    faults(played.url, api_slow=0.0)
    resumed = played.shell("reconcile", "payfield", "--json")
    assert "resuming" in resumed.err
    assert (resumed.json["id"], resumed.json["asked"]) == (row.id, ASKED_IN_PARTS)


def test_after_a_kill_the_lease_protects_what_may_still_run(played, tmp_path):
    """kill -9 gives nothing back: the next is told who had it, until the lease ends."""
    for _ in range(ASKED_IN_PARTS):
        create(played.shell, "payfield")
    faults(played.url, api_slow=1.0, api_slow_seconds=SLOW_S)

    with started("--config", str(played.shell.config), "reconcile", "payfield", errors=tmp_path / "e.txt") as process:
        until(lambda: asked_so_far(played.shell))
        process.stop(signal.SIGKILL)
    faults(played.url, api_slow=0.0)
    typed = played.shell("reconcile", "payfield", code=Exit.FAILED)
    assert f"process {process.child.pid} on" in typed.err

    service = played.shell.service()
    with service.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE reconciliation SET lease_ends_at = held_at")
    service.close()
    assert played.shell("reconcile", "payfield", "--json").json["asked"] == ASKED_IN_PARTS
