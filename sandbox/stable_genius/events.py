"""Stable Genius' webhooks: endpoints with secrets, signed events, the QR picture."""

import struct
import zlib
from datetime import datetime
from typing import Any

from sandbox.deliver import Message, Policy
from sandbox.provider import Stage, whole
from sandbox.signing import stable_genius
from sandbox.stable_genius.account import Account
from sandbox.stable_genius.errors import refuse
from sandbox.times import iso, now, parsed
from sandbox.web import Call, Reply, json_reply, to_json
from sandbox.world import Resource

API_VERSION = "2026-04-01"

#: Ours: the provider's retry schedule was not to be found.
POLICY = Policy(delays=(5.0, 30.0, 120.0, 600.0, 3600.0, 14_400.0))


class Events:
    """Webhook endpoints by environment, and the events to them."""

    def __init__(self, stage: Stage, owner: Account) -> None:
        self._stage, self._owner = stage, owner
        self._endpoints: list[tuple[str, str, str]] = []
        self._logged: list[tuple[str, bool, datetime, bytes]] = []  #: id, environment, time and body of every event
        self._numbers: dict[str, int] = {}  #: by id, the place in it

    def add(self, url: str, secret: str, kind: str) -> None:
        """Add an endpoint; an URL that is registered again gets the new secret."""
        self._endpoints = [item for item in self._endpoints if (item[0], item[2]) != (url, kind)]
        self._endpoints.append((url, secret, kind))

    async def subscribe(self, call: Call) -> Reply:
        """Register an endpoint, and answer its signing secret.

        Inferred from S2: the URL must be HTTPS and answer a GET with 200.
        """
        is_live = self._owner.authorise(call)
        url = self._owner.read(call).get("url")
        if not isinstance(url, str) or not self._owner.is_acceptable(url):
            raise refuse("invalid_webhook_url", param="url")
        if await self._stage.deliveries.probe(url) != 200:
            raise refuse("webhook_unreachable", param="url")
        world = self._stage.world
        name = world.name(self._owner.name, "endpoint", url)
        secret = "whsec_" + world.hex(name, 40, "secret")
        self.add(url, secret, "live" if is_live else "test")
        value = {"id": "we_" + world.hex(name, 24, "endpoint"), "object": "webhook_endpoint", "url": url}
        return json_reply(201, value | {"secret": secret})

    def moved(self, resource: Resource) -> None:
        """Send the events of the intent's state; `settled` shows only as a settlement."""
        shown = self._owner.shown(resource)
        if resource.state == "confirmed":
            self.transaction(resource, is_matched=True)
            self._tell("payment_intent.confirmed", resource, shown)
        elif resource.state in {"expired", "cancelled"}:
            names = ("id", "object", "status", "amount", "currency", "merchant_id", "metadata")
            brief = {name: shown[name] for name in (*names, f"{resource.state}_at")}
            self._tell(f"payment_intent.{resource.state}", resource, brief)
        elif resource.state == "settled":
            self.settlement(resource, "completed")

    def transaction(self, resource: Resource, *, is_matched: bool) -> None:
        """USDC came to the address; the object's shape is ours, as none is documented."""
        world, name = self._stage.world, f"{resource.name}/{'matched' if is_matched else 'late'}"
        data = {
            "id": "txn_" + world.hex(name, 24, "transaction"),
            "object": "transaction",
            "amount": float(resource.data["amount"]),
            "currency": "usd",
            "token": "USDC",
            "chain": "base",
            "merchant_id": resource.data["merchant_id"],
            "payment_intent": resource.ref if is_matched else None,
            "payment_address": resource.data["payment_address"],
            "sender_address": "0x" + world.hex(resource.name, 40, "sender"),
            "tx_hash": "0x" + world.hex(resource.name, 64, "tx"),
            "created_at": iso(now()),
        }
        self._tell("transaction.created", resource, data)

    def settlement(self, resource: Resource, outcome: str) -> None:
        """Report that money went to the bank, or did not.

        The object's shape is ours, as none is documented.
        """
        data = {
            "id": "stl_" + self._stage.world.hex(resource.name, 24, "settlement"),
            "object": "settlement",
            "status": outcome,
            "amount": float(resource.data["amount"]),
            "currency": "usd",
            "merchant_id": resource.data["merchant_id"],
            "payment_intents": [resource.ref],
            f"{outcome}_at": iso(now()),
        }
        self._tell(f"settlement.{outcome}", resource, data)

    def _tell(self, kind: str, resource: Resource, data: dict[str, Any]) -> None:
        name = f"{resource.name}/{kind}/{resource.nth(kind)}"
        envelope: dict[str, Any] = {
            "id": "evt_" + self._stage.world.hex(name, 24, "event"),
            "object": "event",
            "type": kind,
            "api_version": API_VERSION,
            "created_at": iso(now()),
            "data": data,
        }
        claimed = self._owner.shown(resource) | {"status": "confirmed", "confirmed_at": envelope["created_at"]}
        forged = envelope | {
            "id": "evt_" + self._stage.world.hex(name, 24, "forged"),
            "type": "payment_intent.confirmed",
            "data": claimed,
        }
        altered = envelope | {"data": data | {"amount": data["amount"] + 1}}
        body = to_json(envelope)
        self._numbers[envelope["id"]] = len(self._logged)
        self._logged.append((envelope["id"], resource.is_live, now(), body))
        wanted = "live" if resource.is_live else "test"
        listening = [item for item in self._endpoints if item[2] in {"", wanted}]
        for number, (url, secret, _) in enumerate(listening):
            self._stage.deliveries.post(
                Message(
                    provider=self._owner.name,
                    name=f"{name}/{number}",
                    lane=f"{resource.name}/{url}",
                    event=kind,
                    url=url,
                    body=body,
                    sign=stable_genius(secret),
                    sign_wrongly=stable_genius("not_the_secret_of_anybody"),
                    policy=POLICY,
                    forged=to_json(forged),
                    altered=to_json(altered),
                )
            )

    def listed(self, call: Call) -> Reply:
        """List the key's events after an event or an instant, the oldest first.

        An extension of the sandbox: Stable Genius documents no list of events.
        """
        is_live, query = self._owner.authorise(call), call.query
        since, after = parsed(query.get("created_after", "")), query.get("starting_after")
        if after is not None and after not in self._numbers:
            raise refuse("invalid_request", "no such event", "starting_after")
        limit = whole(query.get("limit"), 25, 100)
        start = 0 if after is None else self._numbers[after] + 1
        rows = [
            body
            for _, live, at, body in self._logged[start:]
            if live == is_live and (after is not None or since is None or at > since)
        ]
        content = b'{"object":"list","data":[' + b",".join(rows[:limit])
        content += b'],"has_more":' + (b"true" if len(rows) > limit else b"false") + b"}"
        return Reply(200, content)

    def qr_image(self, call: Call) -> Reply:
        """Draw a PNG of 400 by 400: a pattern of the id, which is never scanned here."""
        text = call.params["id"]
        rng = self._stage.dice.draw("qr", text)
        cells = [[rng.random() < 0.5 for _ in range(25)] for _ in range(25)]
        rows = b"".join((b"\0" + b"".join((b"\0" if cell else b"\xff") * 16 for cell in row)) * 16 for row in cells)
        return Reply(200, _png(400, 400, rows), content_type="image/png")


def _png(width: int, height: int, rows: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
