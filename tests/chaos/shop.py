"""A merchant's shop: takes effects over HTTP, checks their signature, and counts them."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections import defaultdict
from dataclasses import dataclass, field

#: What was paid and what became of it: (provider_ref, effect).
Owed = tuple[str, str]


@dataclass
class Shop:
    """Counts what arrives by id and by what it is about. Every path but its own is a provider that is away (503)."""

    key: bytes
    ids: dict[Owed, set[str]] = field(default_factory=lambda: defaultdict(set))  #: distinct webhook-ids
    bodies: dict[str, set[bytes]] = field(default_factory=lambda: defaultdict(set))  #: distinct bodies by webhook-id
    received: int = 0
    forged: int = 0
    fulfilled: dict[str, int] = field(default_factory=lambda: defaultdict(int))  #: by provider_ref, dedup by id

    @property
    def secret(self) -> str:
        """The key as Standard Webhooks writes it."""
        return "whsec_" + base64.b64encode(self.key).decode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while line := await reader.readline():
                headers: dict[str, str] = {}
                while (header := (await reader.readline()).strip()) != b"":
                    name, _, value = header.decode().partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                status = b"200 OK" if line.startswith(b"POST /shop ") else b"503 Service Unavailable"
                if status == b"200 OK":
                    self._take(headers, body)
                writer.write(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\n{}" % status)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the sender was killed
        finally:
            writer.close()

    def _take(self, headers: dict[str, str], body: bytes) -> None:
        message_id = headers["webhook-id"]
        signed = f"{message_id}.{headers['webhook-timestamp']}.".encode() + body
        expected = "v1," + base64.b64encode(hmac.new(self.key, signed, hashlib.sha256).digest()).decode()
        if expected not in headers["webhook-signature"].split():
            self.forged += 1
            return
        told = json.loads(body)
        owed = (told["data"]["provider_ref"], told["type"])
        if told["type"] == "payment.paid" and message_id not in self.ids[owed]:
            self.fulfilled[owed[0]] += 1
        self.received += 1
        self.ids[owed].add(message_id)
        self.bodies[message_id].add(body)
