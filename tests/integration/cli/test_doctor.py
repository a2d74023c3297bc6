"""What `receipted doctor` finds in front of a real service, through a proxy that does what proxies do."""

import json
import socket
from contextlib import contextmanager
from datetime import timedelta

import pytest

from receipted.cli.exits import Exit
from receipted.doctor import trial_delivery
from tests.support import tls
from tests.support.processes import started
from tests.support.proxy import Proxy, proxying
from tests.support.settings_file import write_settings

from .conftest import Shell


@pytest.fixture(scope="module")
def ca():
    return tls.authority("an authority of tests")


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """A service that works, and a shell beside it."""
    folder = tmp_path_factory.mktemp("doctor")
    shell = Shell(write_settings(folder))
    with started("--config", str(shell.config), "serve", "--migrate", "--json", errors=folder / "errors") as process:
        yield process.json()["url"], shell


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """However busy the machine is, nothing counts as slow, save where a test says so."""
    for bound in ("_DECISION_TIMEOUT_S", "_MAX_ANSWER_S", "_SLOW_ANSWER_S", "_SLOW_DECISION_S"):
        monkeypatch.setattr(trial_delivery, bound, 60.0)
    monkeypatch.setattr(trial_delivery, "_MAX_CLOCK_SKEW", timedelta(seconds=60))


class Practice:
    """Doctors a service behind one proxy."""

    def __init__(self, url, shell, folder, ca):
        self.proxy = Proxy(url)
        self.shell, self.folder, self.ca = shell, folder, ca

    @contextmanager
    def reachable(self, *chain, host="localhost", issuer=None, **certificate):
        served = tls.served(self.folder / "served", host, issuer or self.ca, *chain, **certificate)
        (self.folder / "ca.pem").write_bytes(self.ca.pem)
        with proxying(self.proxy, *served) as url:
            yield url

    def look(self, url, *accounts, code=Exit.DONE, ca=True):
        """What is found, by check and account."""
        args = [url, "--json", *(f"--account={name}" for name in accounts)]
        if ca:
            args += ["--ca", str(self.folder / "ca.pem")]
        found = self.shell("doctor", *args, code=code).json
        return {(each["check"], each["account"]): each for each in found["findings"]}


@pytest.fixture
def practice(running, tmp_path, ca):
    return Practice(*running, tmp_path, ca)


def test_a_service_that_works_gets_a_clean_bill_for_every_account(practice):
    with practice.reachable() as url:
        found = practice.look(url)

    accounts = {name for _, name in found if name}
    assert accounts >= {"alternative", "stable", "payfield", "banked"}
    for name in accounts:
        for check in ("probe", "answer", "unchanged", "clock", "decision", "size"):
            assert found[check, name]["verdict"] == "ok", found[check, name]
    assert found["tls", None]["verdict"] == "ok"
    messages = practice.shell("inbox", "list", "--account", "stable", "--json").json
    assert {(m["status"], m["decision"]) for m in messages} == {("decided", "noted")}
    assert practice.shell("payments", "list", "--json").json == []
    assert practice.shell("audit", "verify", "--json").code == Exit.DONE


def test_it_says_so_in_words(practice):
    with practice.reachable() as url:
        shown = practice.shell("doctor", url, "--account", "stable", "--ca", str(practice.folder / "ca.pem"))

    assert shown.out.splitlines()[-1].startswith("a provider's deliveries come through")
    assert "ok       stable unchanged: all " in shown.out
    assert "service.public_url" in shown.out  # the tests' settings name another URL


def rewritten(body):
    return json.dumps(json.loads(body)).encode() if body else body


def test_a_proxy_that_writes_json_anew_is_found_out(practice):
    """The signature is wrong then; what arrived is compared with what was sent."""
    practice.proxy.body = rewritten
    with practice.reachable() as url:
        found = practice.look(url, "stable", "alternative", code=Exit.FAILED)

    assert "the body was changed on its way" in found["delivery", "stable"]["says"]
    assert "proxy" in found["delivery", "stable"]["remedy"]
    assert found["unchanged", "alternative"]["verdict"] == "warning"  # nothing of its deliveries is signed
    assert "the body was changed on its way" in found["unchanged", "alternative"]["says"]


def test_a_header_that_is_taken_off_is_named(practice):
    practice.proxy.without = ("x-stablegenius-timestamp", "banked-signature", "x-receipted-trial")
    with practice.reachable() as url:
        found = practice.look(url, "stable", "banked", code=Exit.FAILED)

    assert "the header x-stablegenius-timestamp was taken off" in found["delivery", "stable"]["says"]
    assert "timestamp_missing" in found["delivery", "stable"]["says"]
    assert "the header banked-signature was taken off" in found["delivery", "banked"]["says"]


def test_a_redirect_is_named_with_where_it_leads(practice):
    practice.proxy.redirects_to = "https://www.shop.example/"
    with practice.reachable() as url:
        found = practice.look(url, "stable", code=Exit.FAILED)

    assert found["probe", "stable"]["code"] == "webhook_unreachable"
    assert "a redirect to https://www.shop.example/" in found["probe", "stable"]["says"]
    assert ("delivery", "stable") not in found


def test_a_page_of_somebody_else_is_no_receipted(practice):
    practice.proxy.page = b"<h1>It works!</h1>"
    with practice.reachable() as url:
        found = practice.look(url, "stable", code=Exit.FAILED)

    assert "something that is not Receipted" in found["probe", "stable"]["says"]


def test_a_proxy_that_takes_less_than_the_service_is_found_out(practice):
    practice.proxy.largest = 100_000
    with practice.reachable() as url:
        found = practice.look(url, "payfield", code=Exit.FAILED)

    assert found["decision", "payfield"]["verdict"] == "ok"
    assert found["size", "payfield"]["verdict"] == "fault"
    assert "client_max_body_size" in found["size", "payfield"]["remedy"]


def test_a_slow_way_is_a_warning_and_a_very_slow_one_a_fault(practice, monkeypatch):
    practice.proxy.pause = 0.1
    with practice.reachable() as url:
        monkeypatch.setattr(trial_delivery, "_SLOW_ANSWER_S", 0.1)
        slow = practice.look(url, "banked")
        monkeypatch.setattr(trial_delivery, "_MAX_ANSWER_S", 0.1)
        too_slow = practice.look(url, "banked", code=Exit.FAILED)

    assert slow["answer", "banked"]["verdict"] == "warning"
    assert too_slow["answer", "banked"]["verdict"] == "fault"


def test_a_worker_that_is_behind_is_a_warning(practice, monkeypatch):
    monkeypatch.setattr(trial_delivery, "_SLOW_DECISION_S", 0.0)
    with practice.reachable() as url:
        found = practice.look(url, "banked")

    assert found["decision", "banked"]["verdict"] == "warning"


def test_a_certificate_that_is_not_trusted_is_said_to_be_that(practice):
    with practice.reachable() as url:
        found = practice.look(url, "stable", code=Exit.FAILED, ca=False)

    assert found["tls", None]["code"] == "webhook_unreachable"
    assert ("probe", "stable") not in found


def test_a_missing_intermediate_certificate_is_said_to_be_that(practice):
    between = tls.authority("between", practice.ca)
    with practice.reachable(issuer=between) as url:
        lacking = practice.look(url, "stable", code=Exit.FAILED)
    with practice.reachable(between, issuer=between) as url:
        whole = practice.look(url, "stable")

    assert "full chain" in lacking["tls", None]["remedy"]
    assert whole["tls", None]["verdict"] == "ok"


@pytest.mark.parametrize(
    ("ends_in", "code", "verdict", "word"),
    [
        (timedelta(days=-1), Exit.FAILED, "fault", "expired"),
        (timedelta(days=5), Exit.DONE, "warning", "in 4 days"),
    ],
)
def test_the_end_of_a_certificate(practice, ends_in, code, verdict, word):
    with practice.reachable(ends_in=ends_in) as url:
        found = practice.look(url, "stable", code=code)

    assert found["tls", None]["verdict"] == verdict
    assert word in found["tls", None]["says"]


def test_a_certificate_for_another_name(practice):
    with practice.reachable(host="other.example") as url:
        found = practice.look(url, "stable", code=Exit.FAILED)

    assert "another name" in found["tls", None]["remedy"]


def test_an_installation_with_other_keys_is_told_from_a_proxy(practice, tmp_path):
    """The settings here have another key than those that the service runs with."""
    config = practice.shell.config
    there = config.read_text()
    key = practice.shell.service().accounts["stable"].settings.keyring().keys[0].secret.decode()
    other = Shell(tmp_path / "other.toml")
    other.config.write_text(there.replace(key, "a-key-that-nobody-else-has-0001"))
    practice.shell = other
    with practice.reachable() as url:
        found = practice.look(url, "stable", code=Exit.FAILED)

    assert "another key" in found["delivery", "stable"]["says"]


def test_another_database_is_told(practice, tmp_path):
    other = Shell(write_settings(tmp_path / "."))
    other("migrate")
    practice.shell = other
    with practice.reachable() as url:
        found = practice.look(url, "stable", code=Exit.FAILED)

    assert "is not in this database" in found["delivery", "stable"]["says"]


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://pay.example.com",
            "pay.example.com",
            "https://",
            "https://a:b@pay.example.com",
            "https://x.example?a",
        ),
        *("https://[", "https://[::1", "https://x.example:99999", f"https://{'a' * 70}.example", "https://a..example"),
    ],
)
def test_a_url_that_no_provider_takes(practice, url):
    found = practice.look(url, "stable", code=Exit.FAILED, ca=False)

    assert found["url", None]["code"] == "invalid_webhook_url"
    assert set(found) == {("url", None)}


def test_a_port_where_nobody_listens(practice):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        found = practice.look(f"https://localhost:{taken.getsockname()[1]}", "stable", code=Exit.FAILED, ca=False)

    assert "cannot be reached" in found["tls", None]["says"]
    assert found["name", None]["verdict"] == "warning"


def test_a_file_that_holds_no_certificate(practice, tmp_path):
    (tmp_path / "ca.pem").write_text("nothing")

    refused_finding = practice.shell("doctor", "https://x.example", "--ca", str(tmp_path / "ca.pem"), code=Exit.USAGE)

    assert "is no file of certificates" in refused_finding.err
