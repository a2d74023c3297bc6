"""Run of the demonstration: the service here, and the outside in another process."""

import asyncio
import json
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from audit.verify import AuditReport
from providers.contract import Capability
from providers.errors import ProviderError
from receipted.demo.plan import ACCOUNTS, Order, settings_data
from receipted.demo.results import DemoFigures, Key, Mismatch, find_mismatches, truth_by_key
from receipted.settings.load import parse
from receipted.wiring import Service
from sandbox.config import SandboxConfig
from sandbox.process import Outside
from service.commands import Commands
from service.errors import CreateUnanswered, StillApplying
from service.passwords import generate_password, hash_password
from service.permissions import Role
from service.users import new_person
from statemachine.phases import MOVING_PHASES, Review
from storage import console_users, migrate, payments, totals
from storage import counts as storage_counts
from storage.private_files import make_folder, written
from storage.tables import Payment

#: How many create calls the shop has under way at once.
_CONCURRENT_CUSTOMERS = 16
_MAX_TRIES = 6
_OPERATOR = "operator of the demonstration"
_OPEN_PHASES = frozenset(phase.value for phase in MOVING_PHASES)


class Demonstration:
    """One run: service, outside world and merchant, in a new database."""

    def __init__(
        self,
        config: SandboxConfig,
        outside: Outside,
        folder: Path,
        *,
        patience_speed: float | None = None,
        database: str | None = None,
    ) -> None:
        make_folder(folder)
        for leftover in folder.glob("receipted.db*"):
            leftover.unlink()
        self.port = _free_port()
        self.outside = outside
        data = settings_data(
            config,
            database=database or f"sqlite:///{folder / 'receipted.db'}",
            sandbox_url=outside.sandbox_url,
            shop_url=outside.shop_url,
            port=self.port,
            patience_speed=patience_speed or config.speed,
        )
        self.settings_file = folder / "receipted.toml"
        with written(self.settings_file) as file:
            file.write(_toml(data).encode())
        self.service = Service(parse(data))
        migrate.upgrade(self.service.database)
        self.resolved: Counter[str] = Counter()

    @property
    def shown_settings_file(self) -> str:
        """The settings' path as a person would type it here."""
        here = Path.cwd()
        file = self.settings_file
        return str(file.relative_to(here)) if file.is_relative_to(here) else str(file)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Commands]:
        """Run the service inside this block as `receipted serve` does; yield its commands."""
        # They take time that no other command should.
        from receipted.app import create_app  # noqa: PLC0415
        from receipted.http_protocol import BoundedProtocol  # noqa: PLC0415

        app = create_app(self.service, with_work=True)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                port=self.port,
                http=BoundedProtocol,
                ws="none",
                log_config=None,
                access_log=False,
                lifespan="on",
                proxy_headers=False,
            )
        )
        serving = asyncio.create_task(server.serve())
        try:
            async with self.service.clients() as clients, httpx2.AsyncClient(timeout=10) as self.http:
                while not server.started:
                    if serving.done():
                        raise RuntimeError("the service did not start")
                    await asyncio.sleep(0.02)
                commands = self.service.commands(clients)
                for account in ACCOUNTS:
                    await self._register(account.name, account.sandbox, clients)
                yield commands
        finally:
            app.stop()  # pages of the console that wait for something new
            server.should_exit = True
            await serving
            self.service.close()

    def add_console_user(self) -> tuple[str, str]:
        """Add an administrator of the console; return name and password."""
        name, password, now = "demo", generate_password(), self.service.clock()
        with self.service.database.write() as unit:
            console_users.add(unit, new_person(name, Role.ADMIN, hash_password(password), now, is_temporary=False))
        return name, password

    async def _register(self, account: str, sandbox: str, clients: Mapping[str, Any]) -> None:
        """Register our URL by the provider's call, or as in its dashboard."""
        url = f"http://127.0.0.1:{self.port}/webhooks/{account}"
        key = self.service.settings.accounts[account].webhook_keys[0].secret.reveal()
        provider = self.service.accounts[account].provider
        name = provider.webhook_key_detail
        details = {name: key} if name is not None else {}
        for _ in range(_MAX_TRIES):
            if not provider.can(Capability.REGISTER):
                if not sandbox.startswith("payfield"):  # its payments carry callback URLs of their own
                    body = {"provider": sandbox, "url": url, "secret": key}
                    answer = await self.http.put(f"{self.outside.sandbox_url}/_control/webhook", json=body)
                    answer.raise_for_status()
                return
            try:
                await clients[account].register_webhook(url, **details)
            except ProviderError as error:
                if not error.may_retry:
                    raise
            else:
                return
        raise RuntimeError(f"{sandbox} did not take our webhook URL")

    async def order(self, commands: Commands, orders: list[Order]) -> None:
        """Create every order's payment; one whose outcome is unknown needs review."""
        queue = list(reversed(orders))

        async def customer() -> None:
            while queue:
                await self._create(commands, queue.pop())

        async with asyncio.TaskGroup() as group:
            for _ in range(_CONCURRENT_CUSTOMERS):
                group.create_task(customer())

    async def _create(self, commands: Commands, order: Order) -> None:
        """Create as a merchant's program would: try again while that is harmless."""
        for attempt in range(_MAX_TRIES):
            try:
                await commands.create(
                    order.account,
                    kind=order.kind,
                    amount_minor=order.amount_minor,
                    currency=order.currency,
                    reference=order.reference,
                    return_url=f"{self.outside.shop_url}/thanks",
                    extra=order.extra,
                )
            except (CreateUnanswered, StillApplying):
                return
            except ProviderError as error:
                if not error.may_retry or attempt == _MAX_TRIES - 1:
                    return
                await asyncio.sleep(0.05 * 2**attempt)
            else:
                return

    async def settle(self, commands: Commands, deadline: float) -> list[Mismatch]:
        """Wait until all is right, resolving reviews as an operator; return mismatches."""
        mismatches: list[Mismatch] = []
        while True:
            idle = await self._get(f"{self.outside.sandbox_url}/_control/idle")
            is_idle = not idle["pending_deliveries"] and not idle["pending_payers"] and await self._is_drained()
            if is_idle:
                truth = await self.truth()
                await self._review(commands, truth)
                mismatches = await self.mismatches(truth)
                if not mismatches:
                    return []
            if time.monotonic() > deadline:
                return mismatches or [Mismatch("-", "-", f"time is up: {idle}")]
            await asyncio.sleep(0.2)

    async def _is_drained(self) -> bool:
        counts = await asyncio.to_thread(self._counts)
        return not any(
            c.statuses["pending"]
            or c.owed["pending"]
            or any(c.phases[phase] for phase in _OPEN_PHASES if not c.reviews)
            for c in counts.values()
        )

    async def _review(self, commands: Commands, truth: Mapping[Key, Mapping[str, Any]]) -> None:
        """Resolve reviews as an operator who reads the provider's own dashboard."""
        by_reference = {(i["provider"], i["kind"], i["reference"]): i for i in truth.values()}
        sandbox = {account.name: account.sandbox for account in ACCOUNTS}
        for payment in await asyncio.to_thread(self._in_review):
            self.resolved[str(payment.review)] += 1
            true = by_reference.get((sandbox[payment.account], payment.kind, payment.reference))
            if payment.provider_ref is None and true is not None:
                payment = await self._retry(lambda p=payment, t=true: commands.track(p.account, t["ref"], p.kind))
            state = "not_created" if true is None else str(true["state"])
            words = "is not there" if true is None else f"shows {state}"
            if payment.review == Review.AMOUNT_MISMATCH:
                words += " and the amount that was asked for"
            await commands.resolve(payment.id, state=state, reason=f"the provider's dashboard {words}", by=_OPERATOR)

    async def _retry(self, call: Any) -> Payment:
        for _ in range(_MAX_TRIES):
            try:
                return await call()  # type: ignore[no-any-return]
            except ProviderError as error:
                if not error.may_retry:
                    raise
        return await call()  # type: ignore[no-any-return]

    async def mismatches(self, truth: Mapping[Key, Mapping[str, Any]]) -> list[Mismatch]:
        """Return the current differences between the service, the providers and the shop."""
        return find_mismatches(await self.payments(), truth, await self.fulfilled())

    async def truth(self) -> dict[Key, Mapping[str, Any]]:
        """Return the payments as the providers hold them."""
        return truth_by_key(await self._get(f"{self.outside.sandbox_url}/_control/truth"))

    async def figures(self, mismatches: list[Mismatch]) -> DemoFigures:
        """Return the current counts."""
        account_of = {payment.id: payment.account for payment in await self.payments()}
        fulfilled: Counter[str] = Counter()
        for payment_id, times in (await self.fulfilled()).items():
            fulfilled[account_of.get(payment_id, "-")] += times
        return DemoFigures(await asyncio.to_thread(self._counts), fulfilled, mismatches)

    async def payments(self) -> list[Payment]:
        """Return every payment, in order of creation."""
        return await asyncio.to_thread(self._payments)

    async def fulfilled(self) -> dict[str, int]:
        """Return the number of times that the shop fulfilled each payment."""
        orders = await self._get(f"{self.outside.shop_url}/orders")
        return dict(orders["fulfilled"])

    async def audit(self) -> AuditReport:
        """Audit the whole history."""
        return await asyncio.to_thread(self.service.audit().run)

    async def sources(self) -> dict[str, Counter[str]]:
        """Return by account what first reported payments as paid."""
        return await asyncio.to_thread(self._sources)

    async def outcomes(self) -> dict[str, dict[str, int]]:
        """Return by provider the faults that the sandbox played."""
        counts = await self._get(f"{self.outside.sandbox_url}/_control/counts")
        return dict(counts["outcomes"])

    async def _get(self, url: str) -> Any:
        answer = await self.http.get(url)
        answer.raise_for_status()
        return answer.json()

    def _counts(self) -> dict[str, storage_counts.AccountCounts]:
        with self.service.database.read() as unit:
            return storage_counts.by_account(unit)

    def _sources(self) -> dict[str, Counter[str]]:
        with self.service.database.read() as unit:
            return totals.first_paid(unit)

    def _payments(self) -> list[Payment]:
        with self.service.database.read() as unit:
            return payments.find(unit, limit=1_000_000)

    def _in_review(self) -> list[Payment]:
        with self.service.database.read() as unit:
            return payments.find(unit, in_review=True, limit=1_000_000)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _toml(data: Mapping[str, Any]) -> str:
    """Format the settings as a file, to try the command line on the demonstration."""
    lines = ["# Written by `receipted demo`. Try: receipted --config THIS_FILE payments list"]
    lines += _table("", data)
    return "\n".join(lines) + "\n"


def _table(name: str, data: Mapping[str, Any]) -> list[str]:
    lines = [f"[{name}]"] if name else []
    inner: list[str] = []
    for key, value in data.items():
        path = f"{name}.{key}" if name else key
        if isinstance(value, Mapping):
            inner += ["", *_table(path, value)]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for item in value:
                inner += ["", f"[[{path}]]", *(f"{k} = {json.dumps(v)}" for k, v in item.items())]
        else:
            lines.append(f"{key} = {json.dumps(value)}")
    return lines + inner
