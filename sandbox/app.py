"""Starlette application of the four providers, their checkouts and the control."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Mount

from sandbox.alternative_payments.api import AlternativePayments
from sandbox.banked.api import BankedProvider
from sandbox.checkout import Checkout
from sandbox.config import SandboxConfig
from sandbox.control import Control
from sandbox.counts import Counts
from sandbox.deliver import Deliveries
from sandbox.faults import Dice
from sandbox.payers import PayerSimulation
from sandbox.payfield.api import Payfield, PayfieldOld
from sandbox.provider import Provider, Stage, Timers
from sandbox.stable_genius.api import StableGenius
from sandbox.web import ProviderApp
from sandbox.world import Resource, World


class Sandbox:
    """One world with its providers; nothing survives the process."""

    def __init__(self, config: SandboxConfig) -> None:
        self.config = config
        self.dice, self.counts, self.timers = Dice(config.seed, config.faults), Counts(), Timers()
        self.world = World(self.dice)
        self.deliveries = Deliveries(config, self.dice, self.counts)
        self.stage = Stage(config, self.world, self.dice, self.counts, self.deliveries, self.timers)
        made = (kind(self.stage) for kind in (AlternativePayments, StableGenius, Payfield, PayfieldOld, BankedProvider))
        self.providers: dict[str, Provider] = {provider.name: provider for provider in made}
        self.payers = PayerSimulation(self.stage, self.providers)
        self.closing = asyncio.Event()
        self.world.on_created.append(self.payers.created)
        self.world.on_moved.append(self._tell_provider)
        self.world.on_moved.append(self.payers.moved)

    def _tell_provider(self, resource: Resource, before: str) -> None:
        self.providers[resource.provider].moved(resource, before)

    async def start(self) -> None:
        """Begin to deliver."""
        await self.deliveries.start()

    async def stop(self) -> None:
        """Forget payers and pending deliveries, and let withheld answers go."""
        self.closing.set()
        self.timers.stop()
        await self.deliveries.stop()


def create_app(config: SandboxConfig) -> Starlette:
    """Build the application, whose lifespan runs the delivery engine and the payers.

    `app.state.sandbox` is its world.
    """
    sandbox = Sandbox(config)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await sandbox.start()
        try:
            yield
        finally:
            await sandbox.stop()

    mounts = [
        Mount(provider.prefix, app=ProviderApp(provider, sandbox.dice, sandbox.counts, sandbox.closing))
        for provider in sandbox.providers.values()
    ]
    control = Control(sandbox.stage, sandbox.providers, sandbox.payers)
    checkout = Checkout(sandbox.world, sandbox.providers)
    app = Starlette(routes=[*mounts, *control.routes(), *checkout.routes()], lifespan=lifespan)
    app.state.sandbox = sandbox
    return app
