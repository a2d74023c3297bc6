"""A message about several payments stands in the timeline of each: API, console and command line, on both databases."""

import json
from pathlib import Path

import pytest

from receipted.settings import load
from receipted.wiring import Service
from storage import inbox, payment_history, payments, search
from storage.inbox import replay
from storage.search import PageCursor, RowFilter
from storage.tables import InboxMessage
from tests.integration.cli.conftest import Shell
from tests.support import api as rig
from tests.support import console
from tests.support.api import Api
from tests.support.builders import a_message
from tests.support.console import Served
from tests.support.settings_file import write_settings

REFS = ("pi_1", "pi_2", "pi_3")


def page_of_three(service: Service) -> tuple[str, dict[str, str]]:
    """A page of the provider's list is decided twice; the second message's id, and the payments' by name.

    The second changes nothing, so that no transition leads from a payment to it.
    """
    _decided(service, _page(service))
    message_id = _decided(service, _page(service))
    with service.database.read() as unit:
        return message_id, {payment.provider_ref or "": payment.id for payment in payments.find(unit)}


def _page(service: Service) -> InboxMessage:
    intents = [{"id": ref, "status": "confirmed", "amount": "4.50", "currency": "usd"} for ref in REFS]
    return a_message(
        account="stable",
        source="list",
        body=json.dumps({"data": intents, "has_more": False}).encode(),
        kind="payment_intent",
        http_status=200,
        received_at=service.clock(),
        provider_time=service.clock(),
    )


def _decided(service: Service, message: InboxMessage) -> str:
    with service.database.write() as unit:
        inbox.record(unit, [message])
    worker = service.inbox_worker()
    while worker.step():
        pass
    return message.id


@pytest.fixture(params=["sqlite", "postgresql"])
def shell(request, tmp_path: Path, template):
    """A command line on either database, migrated."""
    made, path = Shell(write_settings(tmp_path)), tmp_path / "receipted.toml"
    if request.param == "sqlite":
        yield made.migrated()
        return
    server = request.getfixturevalue("postgresql")
    opened = server.copy()
    path.write_text(path.read_text().replace(f"sqlite:///{tmp_path / 'receipted.db'}", opened.url))
    yield made
    server.drop(opened)


def test_the_command_line_shows_it_for_each(shell):
    service = shell.service()
    message_id, by_ref = page_of_three(service)
    service.close()

    assert list(by_ref) == list(REFS)
    for payment_id in by_ref.values():
        shown = shell("payments", "show", payment_id).out
        assert f"list {message_id[-12:]}" in shown
        assert "unchanged: already confirmed" in shown
        listed = shell("inbox", "list", "--payment", payment_id, "--json").json
        assert message_id in {each["id"] for each in listed}
    found = shell("inbox", "list", "--search", "pi_3", "--json").json
    assert message_id in {each["id"] for each in found}
    exported = [json.loads(line) for line in shell("audit", "export", "--payment", by_ref["pi_2"]).out.splitlines()]
    assert message_id in {row["id"] for row in exported if row["table"] == "inbox_message"}
    shell("audit", "verify")


def test_every_reader_of_a_payment_s_messages_finds_it(shell):
    """Timeline, page of a timeline, lists for people and for programs; a replay about others loses none."""
    service = shell.service()
    message_id, by_ref = page_of_three(service)
    with service.database.write() as unit:
        replay(unit, message_id, service.clock())
    service.inbox_worker().step()
    with service.database.read() as unit:
        for payment_id in by_ref.values():
            assert message_id in {message.id for message in payment_history.read(unit, payment_id).messages}
            assert message_id in {each.id for each in payment_history.read(unit, payment_id).rows}
            rows = search.messages(unit, RowFilter({"payment_id": payment_id}), PageCursor(9)).rows
            assert message_id in {row.id for row in rows}
            wanted = search.RowFilter({"payment_id": payment_id})
            lines = search.page(unit, search.MESSAGES, wanted, search.PageCursor(9)).rows
            assert message_id in {line["id"] for line in lines}
            assert search.count(unit, search.MESSAGES, wanted).number == 2
    service.close()


@pytest.fixture
def found(tmp_path, template):
    """Settings whose database is a copy of the migrated file."""
    (tmp_path / "receipted.db").write_bytes(Path(template).read_bytes())
    return load.load(write_settings(tmp_path), {})


def test_the_api_shows_it_for_each(found):
    with rig.serving(found) as api:
        assert isinstance(api, Api)
        message_id, by_ref = page_of_three(api.service)
        client = api.client()
        for payment_id in by_ref.values():
            timeline = client.get(f"/v1/payments/{payment_id}/timeline").json()
            assert message_id in {message["id"] for message in timeline["messages"]}
            listed = client.get("/v1/inbox", params={"payment": payment_id}).json()["data"]
            assert message_id in {message["id"] for message in listed}


def test_the_console_shows_it_for_each(found):
    with console.serving(found) as served:
        assert isinstance(served, Served)
        message_id, by_ref = page_of_three(served.service)
        browser = served.client("operator")
        for ref, payment_id in by_ref.items():
            assert message_id in browser.get(f"/console/payments/{payment_id}").text
            assert message_id in browser.get(f"/console/tables/inbox/list?q={ref}").text
