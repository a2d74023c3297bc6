"""Outside text at every door: headers, cookies, queries, paths and bodies that parsers stumble over are never a 500."""

import itertools
import json
from contextlib import contextmanager

import pytest

from api.application import operations
from api.credentials import Environment, new_key
from console.signing import ConsoleSigner, digest_of, new_secret
from receipted.web_wiring import signing_keys
from service.passwords import ScryptCost, hash_password
from service.permissions import KeyScope, Role
from service.users import new_person
from storage import api_keys, console_sessions, console_users
from storage.ids import new_id
from storage.tables_support import ConsoleSession
from tests.support.serving import serving, settings

#: What some parser of the standard library raises an unusual exception for, or takes for something else.
VALUES = [
    b"",
    b"\xff",
    b"Basic \xff",
    b"Basic \xc3\xa9",
    b"Basic =",
    b"Basic AAAA",
    b"Bearer \xff",
    b"Bearer " + "ключ".encode(),
    b"[",
    b"http://[",
    b"https://[::1",
    b"https://[v1.x]/",
    "https://℀.example/".encode(),
    b"https://example.com:99999999999/",
    b"0" * 5000,
    b"9" * 5000,
    b"-1",
    b"1e999",
    b"nan",
    "٣".encode(),
    b"\xb2",
    b"%",
    b"%ff%00%ed%a0%80",
    b'a="\\777\\400"',
    b"a=1; a; =; ;;,=\x7f",
    b"Wed, 99 Foo 99999 25:61:61 +9999",
    b"Mon, 01 Jan 0001 00:00:00 +2359",
    b"9999-12-31T23:59:59-23:59",
    b"::ffff:192.0.2.1%eth0, fe80::1%25eth0",
    b"[fe80::1%eth0]:99999",
    b"fe80::1%\xff",
    b"1.2.3.4.5, 01.02.03.04",
    b"00-" + b"f" * 32 + b"-" + b"0" * 16 + b"-zz",
    b"sha256=zz",
    b"t=1,v1=",
    b"bytes=-9999999999999999999999",
    b"null",
    b"{" * 2000,
]

#: Headers that decide whether anything else of a request is looked at, and at which doors: each is hostile alone.
GATES = {
    "authorization": ("/v1/", "/metrics", "/webhooks/ap"),
    "host": ("/console/", "/v1/accounts", "/webhooks/sg", "/return/"),
    "origin": ("/console/",),
    "sec-fetch-site": ("/console/",),
    "x-forwarded-for": ("/webhooks/", "/v1/accounts", "/console/login", "/metrics"),
    "x-forwarded-proto": ("/webhooks/sg", "/v1/accounts", "/console/login"),
    "content-type": ("/v1/payments", "/webhooks/", "/console/login", "/console/me"),
    "accept": ("/v1/", "/console/"),
}

#: Every other header that the program reads, hostile all at once.
OTHERS = [
    "referer",
    "sec-fetch-mode",
    "forwarded",
    "x-forwarded-host",
    "x-real-ip",
    "accept-encoding",
    "user-agent",
    "last-event-id",
    "idempotency-key",
    "traceparent",
    "if-none-match",
    "range",
    "x-csrf-token",
    "x-stablegenius-signature",
    "x-stablegenius-timestamp",
    "x-signature",
    "x-timestamp",
    "banked-signature",
]

COOKIES = ["receipted", "receipted-login", "receipted-known", "receipted-flash"]

DOORS = [
    ("POST", "/webhooks/sg"),
    ("GET", "/webhooks/pf"),
    ("POST", "/webhooks/pf"),
    ("POST", "/webhooks/ap"),
    ("POST", "/webhooks/bk"),
    ("POST", "/callbacks/{callback}"),
    ("GET", "/return/{return}"),
    ("GET", "/v1/accounts"),
    ("GET", "/v1/payments"),
    ("GET", "/v1/events"),
    ("POST", "/v1/payments"),
    ("GET", "/openapi.json"),
    ("GET", "/console/"),
    ("GET", "/console/login"),
    ("POST", "/console/login"),
    ("GET", "/console/tables/payments/list"),
    ("POST", "/console/me/sessions/revoke"),
    ("GET", "/console/static/console.css"),
    ("GET", "/metrics"),
    ("GET", "/healthz"),
    ("GET", "/elsewhere"),
]


class Doors:
    """A running application with a key, a session and tokens that open every door."""

    def __init__(self, served):
        self.served, self.failed = served, []
        about = served.payment()
        tokens = served.service.tokens
        self.places = {"callback": tokens.issue("callback", about), "return": tokens.issue("return", about)}
        record, key = new_key("tests", Environment.LIVE, tuple(KeyScope), served.service.clock())
        with served.database.write() as unit:
            api_keys.add(unit, record)
        self.authorization = b"Bearer " + key.encode()
        self._signing = ConsoleSigner(signing_keys(served.service))
        secret, before = self._session(), self._signing.before(served.service.clock())
        self.cookie = f"receipted={self._signing.session(secret)}; receipted-login={before}".encode()
        self._tokens = {True: self._signing.form(before), False: self._signing.form(secret)}

    def csrf(self, path):
        """The token that a form of the path carries."""
        return b"csrf=" + self._tokens[path == "/console/login"].encode()

    def _session(self):
        now, secret = self.served.service.clock(), new_secret()
        admin = new_person(
            "ada", Role.ADMIN, hash_password("correct horse battery", ScryptCost(4, 8, 1)), now, is_temporary=False
        )
        kept = ConsoleSession(
            id=new_id(),
            digest=digest_of(secret),
            person_id=admin.id,
            created_at=now,
            last_seen_at=now,
            expires_at=now.replace(year=now.year + 1),
            address="127.0.0.0/24",
            user_agent="tests",
        )
        with self.served.database.write() as unit:
            console_users.add(unit, admin)
            console_sessions.begin(unit, kept)
        return secret

    def send(self, method, path, headers=(), body=b""):
        """The status of one request; None where the connection is closed without an answer."""
        given = {
            "host": f"127.0.0.1:{self.served.port}".encode(),
            "authorization": self.authorization,
            "cookie": self.cookie,
            "origin": f"http://127.0.0.1:{self.served.port}".encode(),
            "sec-fetch-site": b"same-origin",
            "connection": b"close",
            **dict(headers),
        }
        if method == "POST":
            given["content-length"] = str(len(body)).encode()
        head = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in given.items())
        target = path.format(**self.places).encode("latin-1")
        with self.served.raw() as sock:
            sock.sendall(method.encode() + b" " + target + b" HTTP/1.1\r\n" + head + b"\r\n" + body)
            return status_of(sock)

    def check(self, method, path, headers=(), body=b""):
        """Send it, and note an answer that no client's words may cause."""
        status = self.send(method, path, headers, body)
        if status is not None and status >= 500:
            self.failed.append((status, method, path[:100], [(name, value[:60]) for name, value in headers], body[:60]))


def status_of(sock):
    found = b""
    while b"\r\n" not in found:
        try:
            part = sock.recv(4096)
        except ConnectionError:
            return None
        if not part:
            return None
        found += part
    return int(found.split(b" ", 2)[1])


@contextmanager
def opened(folder, **service):
    with serving(settings(folder, unverified_per_minute=1_000_000, trusted_proxies=["127.0.0.1"], **service)) as served:
        yield Doors(served)


@pytest.fixture(scope="module")
def on_sqlite(tmp_path_factory):
    with opened(tmp_path_factory.mktemp("doors")) as doors:
        yield doors


@pytest.fixture
def either(request, tmp_path):
    """The same doors before each database: they refuse different texts."""
    if request.param == "sqlite":
        with opened(tmp_path) as doors:
            yield doors
        return
    database = request.getfixturevalue("postgresql").cleaned()
    try:
        with opened(tmp_path, database=database.url) as doors:
            yield doors
    finally:
        database.close()


BOTH = pytest.mark.parametrize("either", ["sqlite", "postgresql"], indirect=True)


def nothing_failed(doors):
    failed, doors.failed = doors.failed, []
    assert failed == []


def test_every_door_is_open_to_who_may(on_sqlite):
    """Else nothing behind it would be tried: forged deliveries are refused, and the others have what they need."""
    for method, path in DOORS:
        form = on_sqlite.csrf(path) if path.startswith("/console") else b""
        headers = [("content-type", b"application/x-www-form-urlencoded")] if form else []
        status = on_sqlite.send(method, path, headers, form)
        is_forged = method == "POST" and path.startswith(("/webhooks/", "/callbacks/"))
        expected = {401} if is_forged else {"/elsewhere": {404}, "/console/login": {200, 401}}.get(path, {200, 303})
        assert status in expected | ({400} if path == "/v1/payments" else set()), (method, path)


@pytest.mark.parametrize("header", GATES)
def test_a_header_is_never_a_500(on_sqlite, header):
    for (method, path), value in itertools.product(DOORS, VALUES):
        if path.startswith(GATES[header]):
            on_sqlite.check(method, path, [(header, value)])
    nothing_failed(on_sqlite)


def test_headers_behind_the_gates_are_never_a_500(on_sqlite):
    for (method, path), value in itertools.product(DOORS, VALUES):
        on_sqlite.check(method, path, [(header, value) for header in OTHERS])
    nothing_failed(on_sqlite)


@pytest.mark.parametrize("name", COOKIES)
def test_a_cookie_is_never_a_500(on_sqlite, name):
    doors = [("GET", "/console/"), ("GET", "/console/login"), ("POST", "/console/login")]
    for (method, path), value in itertools.product(doors, VALUES):
        sent = on_sqlite.cookie if name != "receipted" else b""
        on_sqlite.check(method, path, [("cookie", sent + b"; " + name.encode() + b"=" + value)])
    nothing_failed(on_sqlite)


HOSTILE_QUERY = ["", "%", "%zz", "%00", "%ff", "%ed%a0%80", "1&=", "0" * 5000, "9" * 5000, "-1", "1e999", "nan", "%5B"]
TIMES = ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00%2B23:59", "2026-02-30", "2026-11-21T24:60", "99:99"]


def queries():
    """Every name of a query that the program reads: (path, name)."""
    for operation in operations():
        if operation.method == "GET":
            for name in operation.query_model.model_fields if operation.query_model is not None else ["x"]:
                yield operation.path.replace("{id}", new_id()).replace("{account}", "sg"), name
    for key in ("payments", "inbox", "outbox", "quarantine"):
        for name in ("q", "account", "status", "since", "until", "after", "sort", "page_size", "page"):
            yield f"/console/tables/{key}/list", name
        yield f"/console/tables/{key}/detail", "pk"
        yield f"/console/tables/{key}/export", "since"
    for name in ("day", "until", "way", "account", "currency", "kind", "after"):
        yield "/console/money?day=2026-11-21", name
    yield from [("/console/login", "next"), ("/console/payments/" + new_id(), "before"), ("/webhooks/pf", "kind")]


@BOTH
def test_a_query_is_never_a_500(either):
    for path, name in queries():
        values = HOSTILE_QUERY + (TIMES if name in ("since", "until", "day", "before", "after") else [])
        for value in values:
            either.check("GET", f"{path}{'&' if '?' in path else '?'}{name}={value}")
    nothing_failed(either)


@BOTH
def test_a_path_is_never_a_500(either):
    parts = ["%00", "%ff", "%ed%a0%80", "..%2f", "%0a", "a" * 300, "[", new_id()]
    paths = {operation.path for operation in operations()}
    paths |= {route.path for route in either.served.app.routes if hasattr(route, "path")}
    paths |= {f"/console/{place}" for place in ("accounts/{id}", "payments/{id}", "payments/{id}/live", "{id}")}
    paths |= {"/console/inbox/{id}/body", "/console/tables/{id}/list", "/console/tables/inbox/detail?pk={id}"}
    methods = ("GET", "POST", "OPTIONS")
    for path, part, method in itertools.product(sorted(paths), parts, methods):
        for name in ("{id}", "{account}", "{token}", "{name}", "{path:path}"):
            path = path.replace(name, part)
        either.check(method, path)
    nothing_failed(either)


BODIES = [
    b"\xff",
    b"\xef\xbb\xbf{}",
    b"{" * 5000,
    b"[" * 100_000,
    b'{"a": ' + b"9" * 5000 + b"}",
    b'{"amount_minor": 1e999}',
    b'{"amount_minor": NaN}',
    b'{"reference": "\\ud800"}',
    b'{"reference": "\\u0000"}',
    b'{"id": "\\u0000", "type": "\\ud800", "data": {"id": "\\u0000"}}',
    json.dumps({"account": "sg", "amount_minor": 10**30, "currency": "\0", "reference": "\ud800"}).encode(),
    json.dumps(
        {"account": "sg\0", "amount_minor": 1, "currency": "USD", "reference": "r", "return_url": "http://["}
    ).encode(),
    json.dumps({"account": "pf", "ref": "\0", "kind": "\0", "name": "\0", "reason": "\0", "state": "\0"}).encode(),
    b"name=%00&password=%00",
    b"name=%ff&password=%ff",
    b"name=ada%00&password=x&next=http://[",
    b"name=%F0%9F%98%80&password=%F0%9F%98%80&reason=%00&role=%00&id=%00&total=%D9%A3&done=99999999999999999999",
]


@BOTH
def test_a_body_is_never_a_500(either):
    posts = {operation.path for operation in operations() if operation.method == "POST"}
    posts |= {f"/console/{place}" for place in ("me/password", "people", "tables/outbox/redrive", "payments/x/resolve")}
    posts |= {path for method, path in DOORS if method == "POST"}
    for path, body in itertools.product(sorted(posts), BODIES):
        path = path.replace("{id}", new_id())
        is_form = path.startswith("/console")
        content = b"application/x-www-form-urlencoded" if is_form else b"application/json"
        sent = body + b"&" + either.csrf(path) if is_form else body
        either.check("POST", path, [("content-type", content), ("idempotency-key", new_id().encode())], sent)
    nothing_failed(either)


def test_a_reader_who_says_where_it_was_is_never_a_500(on_sqlite):
    for value in VALUES:
        headers = [("accept", b"text/event-stream"), ("last-event-id", value)]
        on_sqlite.check("GET", "/v1/events", headers)
    nothing_failed(on_sqlite)
