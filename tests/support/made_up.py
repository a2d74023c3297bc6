"""A made-up provider of two kinds that tells of states, sums and parts as an observation is written."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import ClassVar

import msgspec

from providers.contract import (
    Account,
    Capability,
    Client,
    Delivery,
    Provider,
    ProviderOptions,
    Reading,
    Statement,
    Transport,
    Verified,
)
from providers.signing import KeyRing, Window
from statemachine.lifecycle import Lifecycle
from statemachine.observation import Observation
from statemachine.phases import ANSWERS
from statemachine.sums import UNSAID, Part, Sums
from tests.support.lifecycles import CARD, CHARGE, DEBIT, ORDER


class _Body(msgspec.Struct):
    id: str
    serial: str
    kind: str
    status: str | None = None
    amount: int | None = None
    sums: Sums | None = None
    parts: tuple[Part, ...] = ()
    at: datetime | None = None
    reference: str | None = None
    names: tuple[str, ...] = ()


def body_of(ref: str, kind: str, seen: Observation, serial: str) -> bytes:
    """What the provider sends to say this of one of its payments."""
    said = _Body(
        id=ref,
        serial=serial,
        kind=kind,
        status=seen.status,
        amount=seen.amount_minor,
        sums=None if seen.sums is UNSAID else seen.sums,
        parts=seen.parts,
        at=seen.as_of,
        reference=seen.reference,
        names=seen.names,
    )
    return msgspec.json.encode(said)


class MadeUpProvider(Provider):
    """Authentic whoever sends it; asked about both kinds."""

    name: ClassVar[str] = "made_up"
    lifecycles: ClassVar[dict[str, Lifecycle]] = {"card": CARD, "debit": DEBIT}
    default_kind: ClassVar[str] = "card"

    def __init__(self) -> None:
        super().__init__(ProviderOptions())

    def capabilities(self) -> dict[Capability, frozenset[str]]:
        return {Capability.ASK: frozenset(self.lifecycles)}

    def verify(self, delivery: Delivery, keys: KeyRing, window: Window, now: datetime) -> Verified:
        return Verified("k1")

    def delivery_key(self, delivery: Delivery) -> str:
        return str(json.loads(delivery.body)["serial"])

    def parse(self, statement: Statement) -> Reading:
        said = msgspec.json.decode(statement.body, type=_Body)
        is_answer = statement.source in ANSWERS
        seen = Observation(
            statement.source,
            kind=said.kind,
            provider_ref=said.id,
            reference=said.reference,
            names=said.names,
            status=said.status,
            amount_minor=said.amount,
            currency="USD",
            sums=said.sums or UNSAID,
            parts=said.parts,
            as_of=statement.received_at if is_answer else said.at,
        )
        return Reading(observations=(seen,))

    def client(self, account: Account, transport: Transport, clock: Callable[[], datetime]) -> Client:
        raise NotImplementedError("the world scripts its own")


class OrderProvider(MadeUpProvider):
    """Its orders are paid in attempts, each with an id of its own and a charge."""

    name: ClassVar[str] = "made_up_orders"
    lifecycles: ClassVar[dict[str, Lifecycle]] = {"order": ORDER, "charge": CHARGE}
    default_kind: ClassVar[str] = "order"

    def capabilities(self) -> dict[Capability, frozenset[str]]:
        return {Capability.ASK: frozenset({"order"})}
