"""The merchant's API put together: what `api/` needs, from the service's own parts."""

from starlette.routing import BaseRoute

from api.parts import Account, Bounds, Parts, Proof
from api.routes import routes
from receipted.edge import Edge
from receipted.wiring import PROVIDERS, Service
from service.audit import Prover


def rest_routes(service: Service, edge: Edge) -> list[BaseRoute]:
    """The API's routes; none where the settings do not enable it."""
    if not service.settings.api.enabled:
        return []
    return routes(_parts(service, edge), public_url=service.settings.service.public_url)


def _parts(service: Service, edge: Edge) -> Parts:
    settings = service.settings
    return Parts(
        database=service.database,
        clock=service.work_clock,
        commands=edge.commands,
        accounts={
            name: Account(
                name=name,
                provider=account.provider.name,
                environment=account.settings.environment,
                webhook_url=f"{settings.service.public_url}/webhooks/{name}",
                default_kind=account.provider.default_kind,
                lifecycles=account.provider.lifecycles,
            )
            for name, account in service.accounts.items()
        },
        lifecycles={
            (provider.name, kind): lifecycle
            for provider in PROVIDERS.values()
            for kind, lifecycle in provider.lifecycles.items()
        },
        prover=Prover(service, Proof),
        is_secure=edge.is_secure,
        read_body=edge.read_body,
        bounds=Bounds(settings.api.requests_per_second, settings.api.burst, settings.api.waiting),
        stopping=edge.stopping,
    )
