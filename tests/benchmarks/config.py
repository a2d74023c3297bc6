"""Settings of the service that is measured: one account, one sink in the process, a provider that is away."""

from pathlib import Path
from typing import Any, Final

from receipted.settings.load import Settings, parse
from tests.benchmarks import events

ROOT: Final = Path(__file__).parents[2]


def take(_effect: Any) -> None:
    """The shop takes every effect."""


def http_sink(url: str) -> dict[str, Any]:
    """A sink behind HTTP, signed for."""
    secret = "whsec_" + "YmVuY2htYXJrLWtleS1vZi1lbm91Z2gtYnl0ZXMtMDE="
    return {"name": "shop", "kind": "http", "url": url, "secrets": [f"plain:{secret}"]}


def settings(url: str, **sections: Any) -> Settings:
    """As an operator's file would be read; only what must be said is said."""
    said: dict[str, Any] = {
        "service": {
            "database": url,
            "public_url": "https://pay.shop.example",
            "development": True,
            "token_keys": [{"id": "t1", "secret": "plain:token-key-for-benchmarks-000001"}],
            "audit_keys": [{"id": "a1", "secret": f"plain:{events.AUDIT_KEY}"}],
        },
        "sinks": [{"name": "shop", "kind": "python", "handler": f"{__name__}:take"}],
        "accounts": {
            events.ACCOUNT: {
                "provider": "stable_genius",
                "environment": "test",  # as the bodies say
                "base_url": "http://127.0.0.1:9",  # nobody listens there: nothing is asked of anybody outside
                "secrets": {"api_key": "plain:an-api-key-of-the-benchmark"},
                "webhook_keys": [{"id": "k1", "secret": f"plain:{events.KEY}"}],
                "options": {"allow_loopback_http": True},
            }
        },
    }
    for name, changes in sections.items():
        said[name] = changes if isinstance(changes, list) else {**said.get(name, {}), **changes}
    return parse(said, environ={})
