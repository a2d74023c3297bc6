"""A desk to say things at, and the commands of a service whose provider is scripted."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from providers.banked.client import BankedClient
from providers.contract import Answer, Client, CreateRequest
from receipted.settings import load
from receipted.wiring import Service
from service.commands import Commands
from storage import outbox, payments
from storage.tables import Payment
from tests.support.databases import fill
from tests.support.pipeline_world import World
from tests.support.settings_file import write_settings
from tests.support.worker_desk import Desk


@pytest.fixture
def world(template: Path, tmp_path: Path) -> Iterator[World]:
    made = World(template, tmp_path / "world.db")
    yield made
    made.close()


@pytest.fixture
def desk(world: World) -> Desk:
    return Desk(world)


class Scripted(Client):
    """Answers each create call with the next of its script; an exception is raised."""

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.created: list[CreateRequest] = []
        self.present: Callable[[str, str], Answer] | None = None

    async def create(self, request: CreateRequest) -> Answer:
        self.created.append(request)
        said = self.script.pop(0)
        if callable(said):
            said = said(request)
        if isinstance(said, BaseException):
            raise said
        assert isinstance(said, Answer)
        return said

    async def fetch(self, kind: str, ref: str) -> Answer:
        assert self.present is not None
        return self.present(kind, ref)


class LikeStable(Scripted):
    """Remembers as long as the real one."""

    create_is_remembered_for = timedelta(hours=23)


class LikeBanked(Scripted):
    """Remembers as long as the real one."""

    create_is_remembered_for = BankedClient.create_is_remembered_for


class LikeAlternative(Scripted):
    """Remembers nothing."""

    is_create_idempotent = False


class Till:
    """One service with a Stable Genius account whose provider says what the test scripts."""

    def __init__(self, folder: Path, client: Scripted | None = None, account: str = "stable") -> None:
        self.service = Service(load.load(write_settings(folder), {}))
        fill(self.service.database)
        self.account = account
        self.now = datetime(2026, 4, 1, 10, 0, tzinfo=UTC)
        self.service.clock = lambda: self.now
        self.client = client or LikeStable()

    def commands(self) -> Commands:
        return self.service.commands(dict.fromkeys(self.service.accounts, self.client))

    def create(self, reference: str = "order-1", **changes: Any) -> Payment:
        wanted: dict[str, Any] = {"amount_minor": 450, "currency": "USD", "reference": reference}
        return asyncio.run(self.commands().create(self.account, **(wanted | changes)))

    def payments(self) -> list[Payment]:
        with self.service.database.read() as unit:
            return payments.find(unit)

    def effects(self, payment_id: str) -> list[str]:
        with self.service.database.read() as unit:
            return [owed.effect for owed in outbox.of_payment(unit, payment_id)]


@pytest.fixture
def till(tmp_path: Path) -> Iterator[Till]:
    made = Till(tmp_path)
    yield made
    made.service.close()
