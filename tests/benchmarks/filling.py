"""Fills an inbox as the way in does: each event is verified, sealed and recorded by the same functions."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from providers.contract import Delivery
from receipted.wiring import Service
from receiver.intake import verified_message
from storage import inbox
from tests.benchmarks import events
from tests.benchmarks.config import settings

_AT_ONCE: Final = 500


def fill(url: str, number: int, *, per_payment: int = 3, sizes: Sequence[int] = events.SIZES) -> None:
    """So many pending messages more are in the inbox, in the order in which a provider would send them."""
    record(url, events.bodies(number, per_payment=per_payment, sizes=sizes))


def record(url: str, bodies: Sequence[bytes]) -> None:
    """The events are pending in the inbox."""
    service = Service(settings(url))
    account = service.receiving_accounts()[events.ACCOUNT]
    for start in range(0, len(bodies), _AT_ONCE):
        messages = []
        for body in bodies[start : start + _AT_ONCE]:
            head, _, _ = events.request("/", body).partition(b"\r\n\r\n")
            lines = [line.partition(": ") for line in head.decode().split("\r\n")[1:]]
            delivery = Delivery(body, tuple((name.lower(), value) for name, _, value in lines))
            messages.append(verified_message(account, None, None, delivery, datetime.now(UTC)))
        with service.database.write() as unit:
            inbox.record(unit, messages)
    service.close()
