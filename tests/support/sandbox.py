"""The providers, as tests of what stands before and behind them want them."""

from collections.abc import Iterator
from contextlib import contextmanager

from sandbox.config import AlternativePayments, SandboxConfig, StableGenius
from sandbox.server import running


@contextmanager
def generous() -> Iterator[str]:
    """The URL of a sandbox without faults or payers, and without limits that tests could reach."""
    config = SandboxConfig(
        alternative_payments=AlternativePayments(requests_per_second=10_000),
        stable_genius=StableGenius(test_requests_per_minute=10_000),
    )
    with running(config) as found:
        yield found.base_url
