"""Runs the demonstration: the outside world in one process, the service in this one, and a merchant between them."""

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

from audit.verify import Report
from console.passwords import generate_password, hash_password
from console.users import new_person
from providers.errors import ProviderError, UnsupportedByProvider
from receipted.demo.plan import ACCOUNTS, Order, settings_data
from receipted.demo.results import DemoFigures, Key, Mismatch, compare, truth_by_key
from receipted.settings.load import parse
from receipted.wiring import Service
from sandbox.config import SandboxConfig
from sandbox.outside import Outside
from service.commands import Commands
from service.errors import CreateUnanswered, StillApplying
from service.permissions import Role
from statemachine.phases import Phase, Review
from storage import console_users, migrate, payments, totals
from storage import counts as storage_counts
from storage.private_files import make_folder, written
from storage.tables import Payment

#: How many create calls the shop has under way at once.
_CUSTOMERS = 16
_TRIES = 6
_OPERATOR = "operator of the demonstration"
_MOVING = frozenset({Phase.OPEN.value, Phase.PROCESSING.value})


class Demonstration:
    """One run: its service, its outside world and its merchant. In a file of its own, unless `database` is given."""

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
        """The service runs within the block as `receipted serve` does; the commands are a merchant's or operator's."""
        # They take time that no other command should.
        from receipted.app import create_app  # noqa: PLC0415
        from receipted.protocol import BoundedProtocol  # noqa: PLC0415

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

    def person(self) -> tuple[str, str]:
        """The name and password of somebody who may do everything in the console of this run."""
        name, password, now = "demo", generate_password(), self.service.clock()
        with self.service.database.write() as unit:
            console_users.add(unit, new_person(name, Role.ADMIN, hash_password(password), now, is_temporary=False))
        return name, password

    async def _register(self, account: str, sandbox: str, clients: Mapping[str, Any]) -> None:
        """Make our URL known: by the provider's call where it has one, else as a person would in its dashboard."""
        url = f"http://127.0.0.1:{self.port}/webhooks/{account}"
        key = self.service.settings.accounts[account].webhook_keys[0].secret.reveal()
        name = self.service.accounts[account].provider.webhook_key_detail
        details = {name: key} if name is not None else {}
        for _ in range(_TRIES):
            try:
                await clients[account].register_webhook(url, **details)
            except UnsupportedByProvider:
                if not sandbox.startswith("payfield"):  # its payments carry callback URLs of their own
                    body = {"provider": sandbox, "url": url, "secret": key}
                    answer = await self.http.put(f"{self.outside.sandbox_url}/_control/webhook", json=body)
                    answer.raise_for_status()
                return
            except ProviderError as error:
                if not error.may_retry:
                    raise
            else:
                return
        raise RuntimeError(f"{sandbox} did not take our webhook URL")

    async def order(self, commands: Commands, orders: list[Order]) -> None:
        """Every order's payment exists at its provider, or needs review because nobody knows."""
        queue = list(reversed(orders))

        async def customer() -> None:
            while queue:
                await self._create(commands, queue.pop())

        async with asyncio.TaskGroup() as group:
            for _ in range(_CUSTOMERS):
                group.create_task(customer())

    async def _create(self, commands: Commands, order: Order) -> None:
        """As a merchant's program would: try again while that is harmless."""
        for attempt in range(_TRIES):
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
                if not error.may_retry or attempt == _TRIES - 1:
                    return
                await asyncio.sleep(0.05 * 2**attempt)
            else:
                return

    async def settle(self, commands: Commands, deadline: float) -> list[Mismatch]:
        """Wait until all is as it must be, with an operator who resolves what needs review; what is wrong if not."""
        wrong: list[Mismatch] = []
        while True:
            idle = await self._get(f"{self.outside.sandbox_url}/_control/idle")
            quiet = not idle["pending_deliveries"] and not idle["pending_payers"] and await self._is_drained()
            if quiet:
                truth = await self.truth()
                await self._review(commands, truth)
                wrong = await self.wrong(truth)
                if not wrong:
                    return []
            if time.monotonic() > deadline:
                return wrong or [Mismatch("-", "-", f"time is up: {idle}")]
            await asyncio.sleep(0.2)

    async def _is_drained(self) -> bool:
        counts = await asyncio.to_thread(self._counts)
        return not any(
            c.statuses["pending"] or c.owed["pending"] or any(c.phases[phase] for phase in _MOVING if not c.reviews)
            for c in counts.values()
        )

    async def _review(self, commands: Commands, truth: Mapping[Key, Mapping[str, Any]]) -> None:
        """What an operator does: look into the provider's own dashboard, and say with a reason what is true."""
        by_reference = {(i["provider"], i["kind"], i["reference"]): i for i in truth.values()}
        sandbox = {account.name: account.sandbox for account in ACCOUNTS}
        for payment in await asyncio.to_thread(self._in_review):
            self.resolved[str(payment.review)] += 1
            true = by_reference.get((sandbox[payment.account], payment.kind, payment.reference))
            if payment.provider_ref is None and true is not None:
                payment = await self._patiently(lambda p=payment, t=true: commands.track(p.account, t["ref"], p.kind))
            state = "not_created" if true is None else str(true["state"])
            words = "is not there" if true is None else f"shows {state}"
            if payment.review == Review.AMOUNT_MISMATCH:
                words += " and the amount that was asked for"
            await commands.resolve(payment.id, state=state, reason=f"the provider's dashboard {words}", by=_OPERATOR)

    async def _patiently(self, call: Any) -> Payment:
        for _ in range(_TRIES):
            try:
                return await call()  # type: ignore[no-any-return]
            except ProviderError as error:
                if not error.may_retry:
                    raise
        return await call()  # type: ignore[no-any-return]

    async def wrong(self, truth: Mapping[Key, Mapping[str, Any]]) -> list[Mismatch]:
        """What differs between the service, the providers and the shop now."""
        return compare(await self.payments(), truth, await self.fulfilled())

    async def truth(self) -> dict[Key, Mapping[str, Any]]:
        """What the providers hold."""
        return truth_by_key(await self._get(f"{self.outside.sandbox_url}/_control/truth"))

    async def figures(self, wrong: list[Mismatch]) -> DemoFigures:
        """The counts as they are now."""
        account_of = {payment.id: payment.account for payment in await self.payments()}
        fulfilled: Counter[str] = Counter()
        for payment_id, times in (await self.fulfilled()).items():
            fulfilled[account_of.get(payment_id, "-")] += times
        return DemoFigures(await asyncio.to_thread(self._counts), fulfilled, wrong)

    async def payments(self) -> list[Payment]:
        """Every payment, in order of creation."""
        return await asyncio.to_thread(self._payments)

    async def fulfilled(self) -> dict[str, int]:
        """How often the shop fulfilled each payment."""
        orders = await self._get(f"{self.outside.shop_url}/orders")
        return dict(orders["fulfilled"])

    async def audit(self) -> Report:
        """The whole history, proved."""
        return await asyncio.to_thread(self.service.audit().run)

    async def heard(self) -> dict[str, Counter[str]]:
        """In which way payments were first heard of to be paid, by account."""
        return await asyncio.to_thread(self._heard)

    async def outcomes(self) -> dict[str, dict[str, int]]:
        """What the sandbox did to us, by provider."""
        counts = await self._get(f"{self.outside.sandbox_url}/_control/counts")
        return dict(counts["outcomes"])

    async def _get(self, url: str) -> Any:
        answer = await self.http.get(url)
        answer.raise_for_status()
        return answer.json()

    def _counts(self) -> dict[str, storage_counts.AccountCounts]:
        with self.service.database.read() as unit:
            return storage_counts.by_account(unit)

    def _heard(self) -> dict[str, Counter[str]]:
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
    """The settings as a file, so that the command line can be tried on what the demonstration leaves behind."""
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
