"""The processes of the Procfile against the sandbox, as a deployment starts them and as people use them."""

import json
import re

import httpx2
import pytest

from tests.e2e.deployment import ORDERS, public_url, register, started_sandbox, write_settings
from tests.e2e.processes import Process, Shop, from_procfile, receipted

pytestmark = pytest.mark.e2e


@pytest.fixture
def started():
    """Starts processes, and leaves none behind."""
    processes = []

    def start(command, settings=None):
        processes.append(Process(command, settings))
        return processes[-1]

    yield start
    for process in reversed(processes):
        process.discard()


@pytest.fixture
def shop():
    opened = Shop()
    yield opened
    opened.close()


@pytest.fixture
def sandbox(started):
    """What a sandbox of its own process says of itself."""
    return started_sandbox(started("receipted sandbox --port 0 --json"))


@pytest.fixture
def settings(tmp_path, shop, sandbox):
    """A settings file with an account at each provider of the sandbox."""
    return write_settings(tmp_path, sandbox, shop.url)


def create(settings, account, reference):
    currency, extra = ORDERS[account]
    fields = f" --extra '{json.dumps(extra)}'" if extra else ""
    line = f"payments create {account} --amount 12.50 --currency {currency} --reference {reference}{fields}"
    return receipted(settings, line)


def pay(sandbox, created):
    """As a payer: open the list of what is open, go to the payment's page, and press its button."""
    with httpx2.Client(base_url=sandbox["url"], follow_redirects=False) as browser:
        listed = browser.get("/checkout").text
        pages = re.findall(r'href="(/checkout/[^"]+)"', listed)
        ours = next(page for page in pages if created["reference"] in browser.get(page).text)
        assert 'name="action" value="pay"' in browser.get(ours).text
        assert browser.post(ours, data={"action": "pay"}).status_code == 303


def test_a_deployment_from_release_to_stop(started, settings, sandbox, shop):
    """Released, started, paid at by people at every provider, proved and stopped: each payment is fulfilled once."""
    assert started(from_procfile("release"), settings).ends() == 0
    web, worker = started(from_procfile("web"), settings), started(from_procfile("worker"), settings)
    web.says("listens at")
    worker.says("worker works")
    register(settings, sandbox)

    created = [create(settings, account, f"ORD{number}") for number, account in enumerate(ORDERS, start=1001)]
    assert {payment["phase"] for payment in created} == {"open"}
    for payment in created:
        pay(sandbox, payment)
    shop.wait_for(lambda: len(shop.paid()) == len(created), "the shop has heard of every payment")
    worker.logs("effect.delivered", times=len(created))

    kept = receipted(settings, "payments list")
    assert {payment["id"] for payment in created} == {payment["id"] for payment in kept}
    assert {payment["phase"] for payment in kept} == {"paid"}
    assert {payment["amount"] for payment in kept} == {"12.50"}
    assert [payment["review"] for payment in kept if payment["review"]] == []

    story = receipted(settings, f"payments show {created[2]['id']}")
    assert "callback" in {message["source"] for message in story["inbox_messages"]}

    assert web.stop() == 0
    assert worker.stop() == 0
    assert set(shop.paid().values()) == {1}
    assert shop.refused == 0
    owed = receipted(settings, "outbox list")
    assert {(effect["status"], effect["attempts"]) for effect in owed} == {("delivered", 1)}
    report = receipted(settings, "audit verify")
    assert report["ok"]
    assert report["signatures"] >= 4
    assert report["unverifiable"] == 0


def test_nothing_is_lost_while_the_worker_is_away(started, settings, sandbox, shop):
    """What comes while only the way in runs waits in the inbox, and is applied by the worker that starts later."""
    assert started(from_procfile("release"), settings).ends() == 0
    web = started(from_procfile("web"), settings)
    web.says("listens at")
    created = create(settings, "payfield", "ORD2001")
    pay(sandbox, created)
    web.logs("delivery.recorded")
    assert receipted(settings, f"payments show {created['id']}")["payment"]["phase"] == "open"

    started(from_procfile("worker"), settings)
    shop.wait_for(lambda: shop.paid() == {created["id"]: 1}, "the shop has heard of the payment")

    assert receipted(settings, f"payments show {created['id']}")["payment"]["phase"] == "paid"


def test_a_forged_delivery_changes_nothing(started, settings):
    """A delivery without our key is refused, kept in quarantine, and moves no payment."""
    assert started(from_procfile("release"), settings).ends() == 0
    started(from_procfile("web"), settings).says("listens at")
    created = create(settings, "payfield", "ORD3001")
    forged = {"external_id": "ORD3001", "status": "success", "updated_at": "2026-01-01T00:00:00Z"}
    headers = {"x-signature": "0" * 64, "x-timestamp": "2026-01-01T00:00:00Z"}
    answer = httpx2.post(f"{public_url(settings)}/webhooks/payfield", json=forged, headers=headers)

    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"
    assert [rejected["reason"] for rejected in receipted(settings, "rejected list payfield")] == ["signature_wrong"]
    assert receipted(settings, f"payments show {created['id']}")["payment"]["state"] == "pending"


def test_no_process_starts_on_another_schema(started, settings):
    """Without the release step web and worker end with exit code 3, and say what to do."""
    for process in ("web", "worker"):
        ended = started(from_procfile(process), settings)

        assert ended.ends() == 3
        assert any("receipted migrate" in line for line in ended.errors)
