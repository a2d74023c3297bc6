"""What stands behind the last chunk of a body is no header: it changes nothing, at any door."""

import json
import re
import resource
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from api.credentials import Environment, new_key
from receipted.settings.secrets import Secret
from service.permissions import KeyScope
from storage import api_keys
from storage.ids import new_id
from tests.integration.receiver.test_framing import CHUNKED, Answers, chunked, post, whole
from tests.support import console
from tests.support.deliveries import event, sign
from tests.support.serving import Served, eventually, serving, settings

TOKEN = "a-token-for-prometheus-0001"
HTTPS = {"X-Forwarded-Proto": "https"}

#: Each header by which something is decided, with a value that is not the request's own.
OTHERS = {
    "X-Forwarded-Proto": "http",
    "X-Forwarded-For": "198.51.100.7",
    "X-Forwarded-Host": "other.example",
    "X-Real-IP": "198.51.100.7",
    "Forwarded": "for=198.51.100.7;proto=https",
    "Via": "1.1 other",
    "Host": "other.example",
    "Authorization": "Bearer rk_live_other",
    "Cookie": "__Host-receipted=other",
    "Origin": "https://other.example",
    "Sec-Fetch-Site": "cross-site",
    "X-StableGenius-Signature": "sha256=" + "0" * 64,
    "X-StableGenius-Timestamp": "1",
    "Idempotency-Key": "another",
    "Content-Type": "text/plain",
    "Content-Encoding": "gzip",
    "Expect": "100-continue",
    "Connection": "keep-alive",
    "Upgrade": "h2c",
    "X-Anything": "else",
}


@dataclass(frozen=True)
class Door:
    """A request that is answered as it should be, and the headers without which it is not."""

    method: str
    path: str
    headers: dict[str, str]
    deciding: frozenset[str]
    body: bytes = b""

    def request(self, headers: dict[str, str], trailers: dict[str, str]) -> bytes:
        """In chunks."""
        lines = [f"{name}: {value}".encode() for name, value in headers.items()]
        head = post(*lines, CHUNKED, method=self.method.encode(), target=self.path.encode())
        behind = "".join(f"{name}: {value}\r\n" for name, value in trailers.items())
        return head + b"\r\n" + chunked(self.body, trailers=behind.encode())


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Behind a proxy at 127.0.0.1; tests ask for nothing that others leave."""
    config = settings(
        tmp_path_factory.mktemp("trailers"),
        development=False,
        trusted_proxies=["127.0.0.1/32"],
        unverified_per_minute=10_000,
    )
    metrics = config.metrics.model_copy(update={"token": Secret(TOKEN, reference="env:METRICS")})
    with serving(config.model_copy(update={"metrics": metrics})) as running:
        yield running


@pytest.fixture(params=["webhook", "callback", "api", "api form", "console", "console form", "metrics"])
def door(request: pytest.FixtureRequest, production: Served) -> Door:
    """Each kind of door, with a request of its own."""
    return door_of(production, request.param)


def door_of(served: Served, name: str) -> Door:
    delivery = event("sg")
    if name in ("webhook", "callback"):
        token = served.service.tokens.issue("callback", served.payment())
        path = "/webhooks/sg" if name == "webhook" else f"/callbacks/{token}"
        signed = {key: value for key, value in delivery.headers if key.startswith("X-StableGenius")}
        return Door("POST", path, HTTPS | signed, frozenset({*HTTPS, *signed}), delivery.body)
    if name.startswith("api"):
        record, key = new_key("tests", Environment.TEST, tuple(KeyScope), served.service.clock())
        with served.service.database.write() as unit:
            api_keys.add(unit, record)
        headers = HTTPS | {"Authorization": f"Bearer {key}"}
        if name == "api":
            return Door("GET", "/v1/payments", headers, frozenset(headers))
        headers |= {"Content-Type": "application/json", "Idempotency-Key": new_id()}
        return Door("POST", "/v1/payments", headers, frozenset({*HTTPS, "Authorization", "Content-Type"}), b"{}")
    if name.startswith("console"):
        browser = console.Served(f"http://127.0.0.1:{served.port}", served.service).client()
        with closing(browser.http):
            cookie = browser.http.cookies["receipted"]
            if name == "console":
                headers = HTTPS | {"Cookie": f"__Host-receipted={cookie}"}
                return Door("GET", "/console/", headers, frozenset(headers))
            headers = HTTPS | {"Cookie": f"__Host-receipted={cookie}", "Origin": "https://pay.shop.example"}
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            form = b"csrf=%b" % browser.csrf.encode()
            return Door("POST", "/console/payments/none/refresh", headers, frozenset(headers), form)
    return Door("GET", "/metrics", {"Authorization": f"Bearer {TOKEN}"}, frozenset({"Authorization"}))


def told(served: Served, request: bytes) -> tuple[int, str]:
    """The answer's status, and its error's code or its page's title."""
    with closing(served.raw()) as connection:
        connection.sendall(request)
        found = Answers(connection).next()
    assert found is not None
    code = re.search(rb'"code":"(\w+)"|<h1[^>]*>([^<]*)', found[1])
    return found[0], "" if code is None else str(code[0])


def test_a_header_that_decides_does_not_count_in_a_trailer(production: Served, door: Door) -> None:
    """A request that lacks it is refused as if the trailer were not there."""
    right = told(production, door.request(door.headers, {}))
    for name in sorted(door.deciding):
        lacking = {key: value for key, value in door.headers.items() if key != name}
        without = told(production, door.request(lacking, {}))
        assert without != right, name
        assert told(production, door.request(lacking, {name: door.headers[name]})) == without, name


def test_no_trailer_changes_an_answer(production: Served, door: Door) -> None:
    """Nor what is kept of a delivery."""
    right = told(production, door.request(door.headers, {}))
    for name, value in OTHERS.items():
        assert told(production, door.request(door.headers, {name: value})) == right, name
    assert told(production, door.request(door.headers, OTHERS)) == right
    for row in production.rows("sg"):
        if row.body == door.body:
            assert not {"via", "origin", "x-anything", "forwarded"} & {name for name, _ in row.headers}
            assert ["host", "pay.example"] in row.headers


def test_a_client_in_a_trailer_is_nobody(production: Served) -> None:
    """Whom a rejected delivery came from is what the proxy's header says, and what is kept of it has no trailer."""
    forged = sign("sg", f'{{"id": "{new_id()}"}}'.encode(), secret="wrong-key-wrong-key")
    headers = {**HTTPS, "X-Forwarded-For": "203.0.113.9", **dict(forged.headers)}
    door = Door("POST", "/webhooks/sg", headers, frozenset(), forged.body)
    assert told(production, door.request(headers, OTHERS))[0] == 401
    (kept,) = [row for row in production.rejected("sg") if row.body == forged.body]
    assert kept.client == "203.0.113.9"
    assert "x-anything" not in {name for name, _ in kept.headers}


def test_the_last_trailer_is_no_header_of_the_next_request(production: Served) -> None:
    """A parser that hands headers on late must not hand it to the wrong request."""
    door = door_of(production, "webhook")
    follower = event("sg")
    with closing(production.raw()) as connection:
        connection.sendall(door.request(door.headers, {"X-Forwarded-Proto": "https", "X-Last": "trailer"}))
        connection.sendall(whole(follower))
        answers = Answers(connection)
        first, second = answers.next(), answers.next()
    assert first is not None
    assert second is not None
    assert (first[0], second[0], json.loads(second[1])["error"]["code"]) == (200, 403, "https_required")


@pytest.mark.parametrize(
    "endless",
    [b"X-Trailer: " + b"x" * 1000 + b"\r\n", b"x" * 1000],
    ids=["trailers", "one trailer"],
)
@pytest.mark.parametrize("path", [b"/webhooks/sg", b"/v1/payments", b"/console/login", b"/metrics", b"/nothing"])
def test_trailers_without_end_cost_little_and_close_the_connection(
    production: Served, path: bytes, endless: bytes
) -> None:
    """27 MiB of them are not kept, whoever would have read the body."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sent = 0
    with closing(production.raw()) as connection:
        connection.sendall(post(b"X-Forwarded-Proto: https", CHUNKED, target=path) + b"\r\n5\r\nhello\r\n0\r\n")
        if endless[:2] != b"X-":
            connection.sendall(b"X-Trailer: ")
        try:
            while sent < 27 * 1024 * 1024:
                connection.sendall(endless)
                sent += len(endless)
        except (ConnectionResetError, BrokenPipeError):
            pass
    assert sent < 27 * 1024 * 1024
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024  # KiB
    eventually(lambda: production.request("GET", "/healthz").status == 200)
