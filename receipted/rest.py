"""Routes of the merchant's API, built from the service's parts."""

from starlette.routing import BaseRoute

from api.application import api_routes
from api.deps import ApiDeps, ApiLimits
from receipted.edge import Edge
from receipted.wiring import PROVIDERS, Service


def rest_routes(service: Service, edge: Edge) -> list[BaseRoute]:
    """Return the API's routes; none where the settings do not enable it."""
    if not service.settings.api.enabled:
        return []
    return api_routes(_deps(service, edge), public_url=service.settings.service.public_url)


def _deps(service: Service, edge: Edge) -> ApiDeps:
    settings = service.settings
    return ApiDeps(
        database=service.database,
        clock=service.work_clock,
        commands=edge.commands,
        accounts=service.configured_accounts(),
        lifecycles={
            (provider.name, kind): lifecycle
            for provider in PROVIDERS.values()
            for kind, lifecycle in provider.lifecycles.items()
        },
        prover=service.prover(),
        is_secure=edge.is_secure,
        read_body=edge.read_body,
        bounds=ApiLimits(settings.api.requests_per_second, settings.api.burst, settings.api.waiting),
        stopping=edge.stopping,
    )
