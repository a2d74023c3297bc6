"""A running API, and clients that speak to it."""

import itertools
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from starlette.applications import Starlette

from api.credentials import Environment, new_key
from receipted.settings.load import Settings
from receipted.web_wiring import WebServices, rest_routes
from receipted.wiring import Service
from service.permissions import KeyScope
from storage import api_keys
from storage.ids import new_id
from storage.tables import Payment
from tests.support.keeping import keep
from tests.support.serving import listening
from tests.support.waiting import DEADLINE_S

EVERYTHING = tuple(KeyScope)

_numbers = itertools.count(1)


@dataclass
class Api:
    """A running API with its service to look inside."""

    base_url: str
    service: Service
    clients: list[httpx2.Client] = field(default_factory=list)

    def key(
        self, *scopes: KeyScope, environment: Environment = Environment.TEST, name: str = "tests", **changes: Any
    ) -> str:
        """A new key, as `receipted keys add` makes it."""
        record, text = new_key(name, environment, scopes or EVERYTHING, self.service.clock(), **changes)
        with self.service.database.write() as unit:
            api_keys.add(unit, record)
        return text

    def client(self, key: str | None = None, **options: Any) -> httpx2.Client:
        """A client that calls with the key, or with one that may do everything at test accounts."""
        headers = {"authorization": f"Bearer {key or self.key()}", **options.pop("headers", {})}
        made_client = httpx2.Client(base_url=self.base_url, headers=headers, **{"timeout": 30, **options})
        self.clients.append(made_client)
        return made_client

    def payments(self, count: int = 1, **columns: Any) -> list[Payment]:
        """Payments that exist here alone, the oldest first."""
        now = self.service.clock()
        found = []
        with self.service.database.write() as unit:
            for _ in range(count):
                values = {"account": "payfield", "kind": "payin", "phase": "open", "amount_minor": 450}
                payment = Payment(
                    **{
                        **values,
                        "id": new_id(),
                        "currency": "BDT",
                        "created_at": now,
                        "changed_at": now,
                        **columns,
                    }
                )
                keep(unit, payment)
                found.append(payment)
        return found


@contextmanager
def serving(found: Settings) -> Iterator[Api]:
    """The API of these settings, whose database is migrated."""
    service = Service(found)
    edge = WebServices(service)

    @asynccontextmanager
    async def lifespan(_app: Starlette):
        async with edge.running():
            yield

    app = Starlette(routes=rest_routes(service, edge), lifespan=lifespan)
    api = Api("", service)
    try:
        with listening(app) as port:
            api.base_url = f"http://127.0.0.1:{port}"
            try:
                yield api
            finally:
                for client in api.clients:
                    client.close()
    finally:
        service.close()


def wish(**changes: Any) -> dict[str, Any]:
    """The body of a payment to create at Payfield."""
    return {
        "account": "payfield",
        "amount_minor": 50_000,
        "currency": "BDT",
        "reference": f"order-{next(_numbers)}-{new_id()[-6:]}",
        "extra": {"merchant_user_id": "17", "merchant_user_ip": "192.0.2.1"},
        **changes,
    }


def create(client: httpx2.Client, *, key: str | None = None, **changes: Any) -> httpx2.Response:
    """One create call."""
    return client.post("/v1/payments", json=wish(**changes), headers={"idempotency-key": key or new_id()})


def error(answer: httpx2.Response, status: int) -> Mapping[str, Any]:
    """The error, after proof that it has the one shape."""
    assert answer.status_code == status, answer.text
    content = answer.json()
    assert list(content) == ["error"], content
    assert {"type", "code", "message", "param", "request_id"} == set(content["error"]) - {"errors"}
    if "errors" in content["error"]:
        assert status == 400
        first = content["error"]["errors"][0]
        assert set(first) == {"code", "message", "param", "where"}
        assert {name: content["error"][name] for name in ("code", "message", "param")}.items() <= first.items()
    assert content["error"]["request_id"] == answer.headers["x-request-id"]
    return content["error"]


def in_parallel(count: int, do: Any) -> Sequence[Any]:
    """What so many threads got that began together."""
    start, results = threading.Barrier(count), [None] * count

    def run(at: int) -> None:
        start.wait(DEADLINE_S)
        results[at] = do(at)

    threads = [threading.Thread(target=run, args=(at,)) for at in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    return results
