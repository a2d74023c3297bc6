"""What these tests share: a sandbox, a merchant's webhook endpoint, and an oracle written from the dossiers."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import httpx2

from sandbox.config import SandboxConfig
from sandbox.server import running
from tests.support.waiting import DEADLINE_S

DEFAULTS = SandboxConfig()
AP, SG, BK = DEFAULTS.alternative_payments, DEFAULTS.stable_genius, DEFAULTS.banked
PF, PF_OLD = DEFAULTS.payfield, DEFAULTS.payfield_old


def eventually(what: Callable[[], Any], seconds: float = 8.0) -> Any:
    """The first truthy answer of `what`; fails after a deadline."""
    deadline, pause = time.monotonic() + seconds, threading.Event()
    while not (value := what()):
        assert time.monotonic() < deadline, "the condition did not come true"
        pause.wait(0.01)
    return value


class Hook(NamedTuple):
    """One delivery as the merchant's endpoint saw it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    answered: int
    at: float

    @property
    def json(self) -> dict[str, Any]:
        """The body, parsed."""
        return json.loads(self.body)


class Endpoint:
    """A merchant's webhook endpoint that keeps what it gets and answers as told."""

    def __init__(self) -> None:
        self.got: list[Hook] = []
        self.answer: Callable[[int, dict[str, str], bytes], int] = lambda _number, _headers, _body: 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                """Say nothing."""

            def _do(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                status = outer.answer(len(outer.got) + 1, headers, body)
                outer.got.append(Hook(self.command, self.path, headers, body, status, time.monotonic()))
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", outer.url + "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_GET = _do  # noqa: N815 - the names that the server calls

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def posts(self) -> list[Hook]:
        """What was delivered so far, in order of arrival."""
        return [hook for hook in list(self.got) if hook.method == "POST"]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Scene:
    """A running sandbox and a client for each of its sides."""

    def __init__(self, url: str, client: httpx2.Client, config: SandboxConfig) -> None:
        self.url, self.client, self.config = url, client, config
        self._token = ""

    # The control.

    def truth(self, ref: str = "") -> Any:
        """Every resource, or the one with this ref."""
        rows = self.client.get(self.url + "/_control/truth").json()
        return next(row for row in rows if row["ref"] == ref) if ref else rows

    def act(self, provider: str, kind: str, ref: str, action: str, **options: Any) -> httpx2.Response:
        body = {"provider": provider, "kind": kind, "ref": ref, "action": action, **options}
        return self.client.post(self.url + "/_control/act", json=body)

    def hook(self, provider: str, endpoint: str, **options: Any) -> None:
        body = {"provider": provider, "url": endpoint, **options}
        assert self.client.put(self.url + "/_control/webhook", json=body).status_code == 200

    def counts(self) -> Any:
        return self.client.get(self.url + "/_control/counts").json()

    def outcomes(self, provider: str) -> dict[str, int]:
        return self.counts()["outcomes"].get(provider, {})

    def journal(self) -> Any:
        return self.client.get(self.url + "/_control/deliveries").json()

    def settled(self) -> None:
        """Wait until no delivery and no payer is pending."""
        idle = {"pending_deliveries": 0, "pending_payers": 0}
        eventually(lambda: self.client.get(self.url + "/_control/idle").json() == idle)

    # The providers.

    def ap(self, method: str, path: str, token: str | None = None, **options: Any) -> httpx2.Response:
        if token is None:
            token = self._token = self._token or self.ap_token()
        headers = {"Authorization": f"Bearer {token}"}
        return self.client.request(method, f"{self.url}/alternative-payments{path}", headers=headers, **options)

    def ap_token(self, **options: Any) -> str:
        return self.ap_oauth(**options).json()["access_token"]

    def ap_oauth(
        self, user: str = AP.client_id, secret: str = AP.client_secret, grant: str = "client_credentials"
    ) -> Any:
        url = self.url + "/alternative-payments/oauth/token"
        return self.client.post(url, auth=(user, secret), data={"grant_type": grant})

    def ap_create(self, path: str = "/payment/request", **changes: Any) -> httpx2.Response:
        return self.ap("POST", path, json=without_none(AP_BODY | changes))

    def sg(self, method: str, path: str, key: str = SG.test_key, **options: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return self.client.request(method, f"{self.url}/stable-genius/v1{path}", headers=headers, **options)

    def sg_create(self, key: str = SG.test_key, **changes: Any) -> httpx2.Response:
        return self.sg("POST", "/payment-intents", key, json=without_none(SG_BODY | changes))

    def pf(self, method: str, path: str, body: Any = None, *, old: bool = False, **overrides: Any) -> httpx2.Response:
        """A signed Payfield call; a header given as None is left out."""
        shop = PF_OLD if old else PF
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        stamp = overrides.get("stamp", datetime.now(UTC).isoformat().replace("+00:00", "Z"))
        text = (stamp or "").encode() + raw
        headers = {
            "Content-Type": "application/json",
            "X-API-Key": overrides.get("key", shop.api_key),
            "X-Timestamp": stamp,
            "X-Signature": overrides.get("signature", mac(overrides.get("secret", shop.api_secret), text).hex()),
        }
        prefix = "/payfield-old" if old else "/payfield"
        return self.client.request(
            method, f"{self.url}{prefix}/api/v1{path}", headers=without_none(headers), content=raw
        )

    def pf_create(self, kind: str = "payins", *, old: bool = False, **changes: Any) -> httpx2.Response:
        return self.pf("POST", f"/{kind}", pf_body(kind, old=old, **changes), old=old)

    def bk(self, method: str, path: str, key: str | None = None, **options: Any) -> httpx2.Response:
        headers = {"Idempotency-Key": key} if key is not None else {}
        options.setdefault("auth", (BK.key, BK.secret))
        return self.client.request(
            method, f"{self.url}/banked{path}", headers=headers | options.pop("headers", {}), **options
        )

    def bk_create(self, key: str | None = None, **changes: Any) -> httpx2.Response:
        return self.bk("POST", "/v2/payment_sessions", key, json=without_none(BK_BODY | changes))


AP_BODY = {
    "amount": "1250",
    "currency": "USD",
    "redirect_url": "https://shop.example/thanks",
    "reference_id": "order-1",
}
SG_BODY = {"amount": 4.50, "currency": "usd", "merchant_id": "mer_sandbox", "ttl": 300}
BK_BODY = {
    "reference": "order 1",
    "line_items": [{"name": "Tea", "amount": 100, "currency": "GBP", "quantity": 4, "description": "Green"}],
    "success_url": "https://shop.example/ok?id=__PAYMENT_ID__",
    "error_url": "https://shop.example/no",
    "payee": {"name": "Shop", "account_number": "12345678", "sort_code": "010203"},
}


def pf_body(kind: str = "payins", *, old: bool = False, **changes: Any) -> dict[str, Any]:
    body = {
        "external_id": "PAY-1",
        "amount": 5000 if old else "5000.00",
        "currency": PF_OLD.currency if old else PF.currency,
        "merchant_user_id": "user-1",
        "merchant_user_ip": "192.0.2.1",
    }
    if kind == "payouts":
        body["card_number"] = "01700000000"
    return without_none(body | changes)


def without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def mac(secret: str, text: bytes) -> bytes:
    return hmac.new(secret.encode(), text, hashlib.sha256).digest()


def basic(user: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


# The oracle: from the dossiers alone.


def is_signed(provider: str, hook: Hook, secret: str = "") -> bool:
    """True when the delivery carries what its provider's pages say it must, and is fresh."""
    given, body = hook.headers, hook.body
    if provider == "alternative_payments":
        return given.get("authorization") == f"Bearer {secret or AP.webhook_secret}"
    if provider == "stable_genius":
        stamp = given.get("x-stablegenius-timestamp", "")
        want = "sha256=" + mac(secret or SG.signing_secret, stamp.encode() + b"." + body).hex()
        return given.get("x-stablegenius-signature") == want and abs(time.time() - int(stamp)) <= 300
    if provider in {"payfield", "payfield_old"}:
        shop = PF if provider == "payfield" else PF_OLD
        stamp = given.get("x-timestamp", "")
        want = mac(secret or shop.webhook_secret, stamp.encode() + body).hex()
        if given.get("x-signature") != want:
            return False
        return abs((datetime.now(UTC) - datetime.fromisoformat(stamp)).total_seconds()) <= 300
    stamp, _, digest = given.get("banked-signature", "").partition(".")
    want = mac(secret or BK.signature_key, stamp.encode() + b"." + body).hex()
    return digest == want and abs(time.time() - int(stamp)) <= 300


@contextmanager
def scene(config: SandboxConfig | None = None) -> Iterator[Scene]:
    """A sandbox of one's own."""
    config = config or SandboxConfig()
    with running(config) as (url, _), httpx2.Client(trust_env=False, timeout=DEADLINE_S) as client:
        yield Scene(url, client, config)
