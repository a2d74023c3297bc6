"""Routes of the console, built from the service's parts."""

import hmac
from collections.abc import Sequence
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from starlette.routing import BaseRoute

from console.application import routes
from console.deps import ConsoleDeps, ConsoleLimits
from console.signing import ConsoleSigner
from providers.errors import UnsupportedByProvider
from receipted.edge import Edge
from receipted.wiring import Service
from storage.tables import Payment


def console_routes(service: Service, edge: Edge) -> list[BaseRoute]:
    """Return the console's routes; none where the settings do not enable it."""
    return routes(console_deps(service, edge)) if service.settings.console.enabled else []


def console_deps(service: Service, edge: Edge) -> ConsoleDeps:
    """Build the dependencies of the console's pages."""
    settings = service.settings
    return ConsoleDeps(
        database=service.database,
        clock=service.clock,
        commands=edge.commands,
        accounts=service.configured_accounts(),
        prover=service.prover(),
        polling=_PollingStatus(service, edge),
        redeemer=service.redeemer(),
        signing=ConsoleSigner(signing_keys(service)),
        origin=_origin(settings.service.public_url),
        is_secure=edge.is_secure,
        address_of=lambda scope: edge.peer(scope).address,
        read_body=edge.read_body,
        is_development=settings.service.development,
        limits=ConsoleLimits(
            idle_timeout=timedelta(seconds=settings.console.idle_seconds),
            max_age=timedelta(seconds=settings.console.longest_seconds),
            attempts=settings.console.attempts_per_name,
            attempts_per_network=settings.console.attempts_per_network,
            attempts_everywhere=settings.console.attempts_everywhere,
            attempts_window=timedelta(seconds=settings.console.attempts_window_seconds),
        ),
        stopping=edge.stopping,
    )


def signing_keys(service: Service) -> Sequence[bytes]:
    """Derive the console's own keys, the signing one last.

    Derived, so that no cookie is ever taken for a token of a URL.
    """
    secrets = [secret.encode() for _, secret in reversed(service.settings.service.token_secrets())]
    return [hmac.digest(secret, b"receipted.console", "sha256") for secret in secrets]


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


class _PollingStatus:
    """Planned polls of payments, and the possible cancels."""

    def __init__(self, service: Service, edge: Edge) -> None:
        self._service, self._edge = service, edge

    def why(self, payment: Payment, now: datetime) -> str | None:
        return (
            self._service.poll_schedule.explain_next_poll(payment, now)
            if payment.account in self._service.accounts
            else None
        )

    def can_cancel(self, payment: Payment) -> bool:
        client = self._edge.client(payment.account)
        if client is None or payment.provider_ref is None:
            return False
        try:
            client.check_cancel(payment.kind)
        except UnsupportedByProvider:
            return False
        return True
