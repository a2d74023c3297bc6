"""Cancelling at the sandbox over real HTTP, while its payers pay."""

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx2
import pytest
from structlog.testing import capture_logs

from providers.contract import Client
from providers.errors import ProviderError
from receipted.settings import load
from receipted.wiring import Service
from sandbox.config import Faults, SandboxConfig, StableGenius
from sandbox.server import running
from service.commands import Commands
from service.errors import CancelNotSent, CancelUnanswered
from statemachine.phases import Phase, Source
from storage import inbox, outbox, payment_polls, transitions
from storage.ids import new_id
from tests.support.databases import fill
from tests.support.settings_file import write_settings
from tests.support.waiting import DEADLINE_S

#: By account: the sandbox's name of the provider, kind, currency, the state when paid, and when cancelled.
SHOPS = {
    "stable": ("stable_genius", "payment_intent", "USD", "confirmed", "cancelled"),
    "banked": ("banked", "payment_session", "GBP", "sent", "failed"),
}
PAYEE = {"name": "The Shop", "account_number": "12345678", "sort_code": "010203"}

#: The sandbox has no limit that these tests could reach, so no turn is waited for.
UNHURRIED = "[accounts.stable.budget]\nrequests = 10000\nseconds = 60"

#: Every fault of a call, often; none that would only take time.
FAULTS = Faults(
    api_429=0.05,
    api_500=0.1,
    api_502_503_504=0.15,
    api_timeout=0.05,
    api_timeout_seconds=0.05,
    api_slow=0.5,
    api_slow_seconds=0.02,
)


@pytest.fixture(scope="module")
def sandbox_url():
    with running(SandboxConfig(stable_genius=StableGenius(test_requests_per_minute=10_000))) as found:
        yield found.base_url


class Counter:
    """A service, its merchant, and the payers of the sandbox, in one event loop."""

    def __init__(self, service: Service, clients: dict[str, Client], http: httpx2.AsyncClient, root: str) -> None:
        self.service, self.clients, self.http, self.root = service, clients, http, root

    @property
    def commands(self) -> Commands:
        return self.service.commands(self.clients)

    async def create(self, account):
        extra = {"payee": PAYEE} if account == "banked" else {}
        return await self.commands.create(
            account, amount_minor=1250, currency=SHOPS[account][2], reference=f"order {new_id()[-12:]}", extra=extra
        )

    async def act(self, payment, action, **details):
        """What a payer does; whether it could be done."""
        content = {"provider": SHOPS[payment.account][0], "kind": payment.kind, "ref": payment.provider_ref}
        answer = await self.http.post(f"{self.root}/_control/act", json=content | {"action": action} | details)
        return answer.status_code == 200

    async def misbehave(self, faults):
        sent = {name: getattr(faults, name) for name in Faults.__dataclass_fields__}
        (await self.http.put(f"{self.root}/_control/faults", json=sent)).raise_for_status()

    async def truth(self, payment):
        rows = (await self.http.get(f"{self.root}/_control/truth")).json()
        return next(row["state"] for row in rows if row["ref"] == payment.provider_ref)

    def poll_of(self, payment):
        with self.service.database.read() as unit:
            return payment_polls.get(unit, payment.id)

    def effects(self, payment):
        with self.service.database.read() as unit:
            return [owed.effect for owed in outbox.of_payment(unit, payment.id)]

    def chain(self, payment):
        with self.service.database.read() as unit:
            return transitions.of_payment(unit, payment.id)

    def told(self, payment, source):
        with self.service.database.read() as unit:
            return [message for message in inbox.concerning(unit, payment.id) if message.source == source]


class Meanwhile:
    """A client before whose cancel call something happens."""

    def __init__(self, client, happens):
        self._client, self._happens = client, happens

    def __getattr__(self, name):
        return getattr(self._client, name)

    async def cancel(self, kind, ref):
        await self._happens()
        return await self._client.cancel(kind, ref)


@pytest.fixture
def at_counter(tmp_path, sandbox_url):
    """Runs one story at a counter of its own."""
    service = Service(load.load(write_settings(tmp_path, sandbox_url, extra=UNHURRIED), {}))
    fill(service.database)

    @asynccontextmanager
    async def opened():
        async with service.clients() as clients, httpx2.AsyncClient(timeout=DEADLINE_S, trust_env=False) as http:
            yield Counter(service, clients, http, sandbox_url)

    def run(story):
        async def told():
            async with opened() as counter:
                await story(counter)

        with capture_logs():
            asyncio.run(told())

    yield run
    service.close()


@pytest.mark.parametrize("account", SHOPS)
def test_what_still_waits_is_cancelled(at_counter, account):
    """The provider is asked, told, and its answer is the transition; a second time nothing happens."""

    async def story(counter):
        payment = await counter.create(account)
        for _ in range(2):
            assert (await counter.commands.cancel(payment.id)).state == SHOPS[account][4]

        assert await counter.truth(payment) == SHOPS[account][4]
        assert len(counter.told(payment, Source.CANCEL)) == len(counter.told(payment, Source.POLL)) == 1
        assert len(counter.effects(payment)) == 1

    at_counter(story)


@pytest.mark.parametrize("account", SHOPS)
def test_what_is_paid_while_we_cancel_is_paid(at_counter, account):
    """The payer pays between our question and our call: the provider refuses, is asked again, and the goods go out."""

    async def story(counter):
        payment = await counter.create(account)
        counter.clients[account] = Meanwhile(counter.clients[account], lambda: counter.act(payment, "pay"))

        paid = await counter.commands.cancel(payment.id)

        assert (paid.state, paid.phase) == (SHOPS[account][3], Phase.PAID)
        assert counter.effects(payment) == ["payment.paid"]
        (refusal,) = counter.told(payment, Source.CANCEL)
        assert "cancel failed: " in refusal.reason

    at_counter(story)


def test_a_payer_who_is_at_the_bank_is_waited_for(at_counter):
    """Banked does not cancel any more, and cannot tell yet: the payment goes on, as the provider says."""

    async def story(counter):
        payment = await counter.create("banked")
        for _ in range(2):
            await counter.act(payment, "step")

        going_on = await counter.commands.cancel(payment.id)

        assert going_on.phase == Phase.PROCESSING
        assert going_on.state == await counter.truth(payment)
        assert counter.poll_of(payment).next_poll_at is not None
        assert counter.effects(payment) == []

    at_counter(story)


@pytest.mark.parametrize("account", SHOPS)
def test_what_expired_first_has_expired(at_counter, account):
    """Nothing is sent for it."""

    async def story(counter):
        payment = await counter.create(account)
        await counter.act(payment, "expire")

        ended = await counter.commands.cancel(payment.id)

        assert ended.state == await counter.truth(payment)
        assert counter.told(payment, Source.CANCEL) == []

    at_counter(story)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("account", SHOPS)
def test_payers_and_cancels_race_through_every_fault(at_counter, account, seed):
    """Whoever wins at the provider: its state is ours after one question, and the shop hears of it exactly once."""

    async def story(counter):
        made = [await counter.create(account) for _ in range(8)]
        await counter.misbehave(replace(FAULTS, api_429=0.0 if account == "stable" else FAULTS.api_429))
        told = []

        async def cancel(payment):
            try:
                told.append(await counter.commands.cancel(payment.id))
            except (CancelNotSent, CancelUnanswered, ProviderError):
                return  # nothing was promised

        races = [work for p in made for work in (cancel(p), cancel(p), counter.act(p, "pay"))]
        random.Random(seed).shuffle(races)
        await asyncio.gather(*races)
        await counter.misbehave(Faults())

        _, _, _, paid, cancelled = SHOPS[account]
        for payment in made:
            truth, now = await counter.truth(payment), await counter.commands.refresh(payment.id)
            assert now.state == truth
            assert truth in (paid, cancelled)
            assert now.review is None
            assert counter.effects(payment) == [f"payment.{now.phase}"]
            assert not any(link.forced for link in counter.chain(payment))
            for each in told:
                assert each.id != payment.id or each.state == truth or each.phase in (Phase.OPEN, Phase.PROCESSING)

    at_counter(story)
