"""Handlers as a merchant would write them, good and bad."""

import threading

from fulfilment.errors import RetryLater
from tests.support.waiting import DEADLINE_S

calls = []
gate = threading.Event()
not_callable = 7


def fulfil(fulfilment):
    calls.append((fulfilment, threading.current_thread()))
    fulfilment.payload["seen"] = True


async def fulfil_async(fulfilment):
    calls.append((fulfilment, threading.current_thread()))


class Shop:
    async def __call__(self, fulfilment):
        calls.append((fulfilment, threading.current_thread()))


shop = Shop()


def lazily(fulfilment):
    return fulfil_async(fulfilment)


def fails(_fulfilment):
    raise KeyError("card 4111 1111 1111 1111")


async def fails_async(_fulfilment):
    raise KeyError("card 4111 1111 1111 1111")


def stops(_fulfilment):
    raise StopIteration


def times_out(_fulfilment):
    raise TimeoutError


def later(_fulfilment):
    raise RetryLater(120)


def answers(_fulfilment):
    return False


def hangs(_fulfilment):
    calls.append((None, threading.current_thread()))
    gate.wait(DEADLINE_S)


def exits(_fulfilment):
    raise SystemExit(3)
