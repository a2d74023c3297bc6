"""One quiet sandbox per module, and a webhook endpoint per test."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from sandbox.config import AlternativePayments, SandboxConfig, StableGenius

from .stage import Endpoint, Scene, scene


@pytest.fixture(scope="module")
def quiet() -> Iterator[Scene]:
    """No faults, no payers, and limits that these tests cannot reach."""
    config = replace(
        SandboxConfig(),
        alternative_payments=AlternativePayments(requests_per_second=10_000),
        stable_genius=StableGenius(test_requests_per_minute=10_000),
    )
    with scene(config) as running:
        yield running


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A webhook endpoint that answers 200 unless told otherwise."""
    made = Endpoint()
    yield made
    made.close()
