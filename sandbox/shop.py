"""A tiny shop that takes signed effects, fulfils orders, and sometimes fails.

It checks Standard Webhooks by its own code, as a merchant's developer would from the specification.
"""

import base64
import hmac
import json
import random
import time
from collections import Counter
from hashlib import sha256

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_TOLERANCE = 300


class Shop:
    """Shop that fulfils each order once per idempotency key.

    `failures` is the share of requests that it answers 503 or late.
    """

    def __init__(self, secret: str, *, failures: float = 0.0, seed: int = 0) -> None:
        self._key = base64.b64decode(secret.removeprefix("whsec_"))
        self._failures = failures
        self._random = random.Random(seed)  # noqa: S311 - a simulation, printed and repeatable
        self._handled: set[str] = set()
        self.fulfilled: Counter[str] = Counter()  #: by payment: distinct `payment.paid` and `payout.paid` taken
        self.effects: Counter[str] = Counter()  #: by effect
        self.requests = 0
        self.repeats = 0  #: deliveries of an effect that was taken before
        self.refused = 0

    def app(self) -> Starlette:
        """`POST /fulfilment` for Receipted, `GET /orders` for the shopkeeper."""
        return Starlette(
            routes=[
                Route("/fulfilment", self.fulfil, methods=["POST"]),
                Route("/orders", self.orders, methods=["GET"]),
                Route("/thanks", self.thanks, methods=["GET"]),
            ]
        )

    async def fulfil(self, request: Request) -> Response:
        """Take one effect; 401 for a signature that is not ours, 503 on a drawn failure."""
        self.requests += 1
        body = await request.body()
        effect_id = request.headers.get("webhook-id", "")
        if not self._is_authentic(request, effect_id, body):
            self.refused += 1
            return JSONResponse({"error": "not signed with our key"}, 401)
        if self._random.random() < self._failures:
            return JSONResponse({"error": "the shop is restarting"}, 503, {"retry-after": "1"})
        if effect_id in self._handled:
            self.repeats += 1
            return JSONResponse({"taken": "before"})
        self._handled.add(effect_id)
        content = json.loads(body)
        self.effects[content["type"]] += 1
        if content["type"] in ("payment.paid", "payout.paid"):
            self.fulfilled[content["data"]["payment"]] += 1
        if self._random.random() < self._failures / 2:
            # taken, and yet the answer is lost on the way: the effect will come again with the same id
            return JSONResponse({"error": "a proxy in between gave up"}, 504)
        return JSONResponse({"taken": "now"})

    async def orders(self, _request: Request) -> Response:
        """Return the fulfilled orders and the counts of requests."""
        return JSONResponse(
            {
                "fulfilled": dict(self.fulfilled),
                "effects": dict(self.effects),
                "requests": self.requests,
                "repeats": self.repeats,
                "refused": self.refused,
            }
        )

    async def thanks(self, _request: Request) -> Response:
        """Return the page that payers come back to."""
        return Response(
            "<!doctype html><title>Thank you</title><h1>Thank you for your order</h1>", media_type="text/html"
        )

    def _is_authentic(self, request: Request, effect_id: str, body: bytes) -> bool:
        stamp = request.headers.get("webhook-timestamp", "")
        if not stamp.isdecimal() or abs(time.time() - int(stamp)) > _TOLERANCE:
            return False
        wanted = hmac.digest(self._key, f"{effect_id}.{stamp}.".encode() + body, sha256)
        given = request.headers.get("webhook-signature", "").split()
        return any(hmac.compare_digest(b"v1," + base64.b64encode(wanted), each.encode()) for each in given)
