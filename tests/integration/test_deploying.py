"""What docs/deploying.md gives to copy, put to work: its settings, its units, and its nginx before a real service."""

import base64
import json
import re
import shutil
import subprocess
import sys
import tomllib
from contextlib import contextmanager

import httpx2
import pytest
import uvicorn

from api.events import EventsQuery
from console.signing import ConsoleSigner
from receipted import runtime
from receipted.cli import processes, server
from receipted.settings.load import parse
from receipted.settings.models import ServiceSettings
from receipted.web_wiring import signing_keys
from storage import outbox, quarantine
from storage.ids import new_id
from tests.repo.commands_in_docs import problem
from tests.support import nginx
from tests.support.console import Served
from tests.support.deployed import PAGE, SECONDS, SETTINGS, SITE, UNIT, Deployed, adapted
from tests.support.processes import ROOT, finished, started


@pytest.fixture(scope="module")
def deployed(tmp_path_factory):
    nginx.program()  # skips before anything is started
    found = Deployed(tmp_path_factory.mktemp("deployed"))
    found.make_secrets()
    found.configure()
    assert finished("--config", str(found.config), "migrate").returncode == 0
    with started("--config", str(found.config), "serve", "--json", errors=found.folder / "errors") as process:
        found.direct = process.json()["url"]
        with nginx.serving(found.site(found.direct), found.folder / "nginx"):
            yield found
        assert process.stop() == 0
    found.service.close()


# the settings


def test_the_settings_have_nothing_but_secrets_to_add(tmp_path):
    for name in re.findall(r"file:(secrets/\w+)", SETTINGS):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("whsec_" + base64.b64encode(name.ljust(32).encode()).decode())

    found = parse(tomllib.loads(SETTINGS), environ={}, base=tmp_path)

    assert not found.service.development
    assert found.service.listen_port == 8000


def test_the_secrets_that_the_page_makes_can_work_and_are_for_their_owner_alone(tmp_path):
    made = Deployed(tmp_path)
    made.make_secrets()
    made.configure()

    assert not any(secret.is_exposed for _, secret in made.service.settings.secrets())
    assert (tmp_path / "etc" / "secrets").stat().st_mode & 0o777 == 0o700
    made.service.close()


@pytest.mark.parametrize("path", [PAGE, ROOT / "deploy" / "Containerfile"], ids=lambda path: path.name)
def test_it_is_installed_by_hashes_and_without_the_developers_tools(path):
    calls = [line.partition(" && ")[0] for line in re.findall(r"-m pip (?:install|wheel)(.+)", path.read_text())]
    builds, runs, *ours = [
        set(re.findall(r"--(?:require-hashes|no-deps|no-build-isolation)|constraints-\w+", each)) for each in calls
    ]

    assert builds == {"--require-hashes", "constraints-build"}
    assert runs == {"--require-hashes", "constraints-runtime"}
    assert ours
    assert ours[0] == {"--no-deps", "--no-build-isolation"}
    assert all("--no-deps" in each for each in ours)


# the unit


def test_the_unit_starts_what_exists():
    commands = re.findall(r"^Exec\w+=/opt/receipted/venv/bin/(.+)$", UNIT, re.MULTILINE)
    instances = set(re.findall(r"receipted@(\w+)\b(?!\.)", PAGE.read_text()))

    assert instances == {"serve", "web", "worker"}
    for each in instances:
        assert [found for line in commands if (found := problem(line.replace("%i", each), is_whole=True))] == []


def test_systemd_has_no_objection_to_the_unit(tmp_path):
    if (program := shutil.which("systemd-analyze")) is None:
        pytest.skip("systemd-analyze is not installed")
    path = tmp_path / "receipted@.service"
    path.write_text(adapted(UNIT, ("/opt/receipted/venv/bin/receipted", sys.executable)))

    for instance in ("serve", "web", "worker"):
        told = [program, "verify", "--man=no", tmp_path / f"receipted@{instance}.service"]
        done = subprocess.run(told, capture_output=True, text=True, timeout=SECONDS, check=False)
        ours = [line for line in done.stderr.splitlines() if "receipted@" in line]  # others' units may be at fault
        assert (done.returncode, ours) == (0, []), done


def test_systemd_waits_longer_for_an_end_than_the_processes_do():
    own = ServiceSettings().stop_timeout_seconds + processes._CHILD_GRACE_S + runtime.THREADS_GRACE_S
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)[1]) > own > server._REQUEST_GRACE_S


# nginx


def test_the_bounds_of_nginx_are_those_of_receipted():
    assert f"client_max_body_size {ServiceSettings().body_limit_bytes // 1024}k;" in SITE
    assert f"client_body_buffer_size {ServiceSettings().body_limit_bytes // 1024}k;" in SITE
    assert f"client_body_timeout {ServiceSettings().body_timeout_seconds:.0f}s;" in SITE
    wait = next(bound.le for bound in EventsQuery.model_fields["wait"].metadata if hasattr(bound, "le"))
    assert int(re.search(r"proxy_read_timeout (\d+)s", SITE)[1]) > wait
    assert int(re.search(r"keepalive_timeout (\d+)s", SITE)[1]) < uvicorn.Config("").timeout_keep_alive


def test_the_doctor_finds_nothing_wrong(deployed):
    found = json.loads(deployed.typed("doctor", deployed.url, "--ca", str(deployed.folder / "ca.pem"), "--json"))

    checks = {each["check"]: each["verdict"] for each in found["findings"]}
    assert found["faults"] == 0
    assert checks.pop("name") == "warning"  # localhost is no public address
    assert {"tls", "probe", "answer", "unchanged", "decision", "size"} <= set(checks)
    assert {checks[check] for check in ("tls", "probe", "unchanged", "size")} == {"ok"}


def test_a_delivery_is_accepted_over_tls_and_nowhere_else(deployed):
    body, headers = deployed.delivery()
    direct = httpx2.post(f"{deployed.direct}/webhooks/shop", content=body, headers=headers)
    claimed = {**headers, "x-forwarded-proto": "https"}
    plain = httpx2.post(f"http://localhost:{deployed.plain_port}/webhooks/shop", content=body, headers=claimed)
    with deployed.browser() as outside:
        through = outside.post("/webhooks/shop", content=body, headers=headers)

    assert (direct.status_code, direct.json()["error"]["code"]) == (403, "https_required")
    assert plain.status_code == 403
    assert (through.status_code, "id" in through.json()) == (200, True), through.text


def test_a_client_is_known_by_its_own_address_whatever_it_claims(deployed):
    body, headers = deployed.delivery()
    with deployed.browser() as outside:
        refused = outside.post("/webhooks/shop", content=body + b" ", headers={**headers, "x-forwarded-for": "8.8.8.8"})

    assert refused.status_code == 401
    with deployed.service.database.read() as unit:
        (kept,) = quarantine.find(unit, account="shop")
    assert kept.client == "127.0.0.2"


@pytest.mark.parametrize("path", ["/metrics", "/%6detrics", "//metrics", "/x/../metrics", "/healthz", "/readyz"])
def test_what_is_for_the_inside_is_not_passed_on(deployed, path):
    with deployed.browser() as outside:
        answer = outside.get(deployed.url + path)

    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html")  # not in our own shape


def test_the_inside_is_answered(deployed):
    assert httpx2.get(f"{deployed.direct}/metrics").status_code == 200
    assert httpx2.get(f"{deployed.direct}/readyz").json()["ready"]


@contextmanager
def streaming(browser, path, headers):
    """The lines of a stream of events as they come, without the empty ones."""
    with browser.stream("GET", path, headers={"accept": "text/event-stream", **headers}) as answer:
        assert answer.status_code == 200
        yield (line for line in answer.iter_lines() if line)


def test_the_feed_of_events_comes_as_it_happens(deployed):
    made = deployed.typed("keys", "add", "shop", "--live", "--scope", "read", "--by", "test", "--json")
    key = json.loads(made)["key"]
    with (
        deployed.browser() as outside,
        streaming(outside, "/v1/events", {"authorization": f"Bearer {key}"}) as lines,
    ):
        assert next(lines).startswith("retry:")
        payment = new_id()
        with deployed.service.database.write() as unit:
            outbox.owe(
                unit,
                payment_id=payment,
                account="shop",
                effect="payment.paid",
                sink="nobody",  # no such sink is configured, so that nothing is sent
                occurrence=0,
                cause=new_id(),
                payload=json.dumps({"type": "payment.paid", "data": {"payment": payment}}),
                now=deployed.service.clock(),
            )
        assert next(lines).startswith("id: ")
        assert next(lines) == "event: payment.paid"


def test_an_open_page_of_the_console_is_told_as_it_happens(deployed):
    served = Served(deployed.url, deployed.service)
    secret = served.client("viewer").secret
    cookie = {"cookie": f"__Host-receipted={ConsoleSigner(signing_keys(deployed.service)).session(secret)}"}
    with deployed.browser() as outside, streaming(outside, "/console/live", cookie) as lines:
        assert next(lines).startswith("retry:")
        mark = next(lines)
        body, headers = deployed.delivery()
        assert outside.post("/webhooks/shop", content=body, headers=headers).status_code == 200
        changed = next(line for line in lines if line.startswith("data:"))

    assert mark.startswith("data:")
    assert changed != mark


def test_a_form_is_taken_from_the_name_that_people_type(deployed):
    """Host is passed on: the origin is not that of service.public_url, which has this test's port."""
    with deployed.browser() as outside:
        page = outside.get("/console/login")
        given = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page.text))
        for origin, status in (("https://localhost", 401), ("https://elsewhere.example", 403)):
            sent = {"origin": origin, "sec-fetch-site": "same-origin"}
            form = {**given, "name": "nobody", "password": "wrong"}
            assert outside.post("/console/login", data=form, headers=sent).status_code == status

    assert given
    assert "content-encoding" not in page.headers
