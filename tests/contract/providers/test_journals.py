"""A provider's list of its own events, over the real sandbox: complete, in order, and as its webhooks are."""

import asyncio
from datetime import timedelta

import pytest

from providers.catalogue import StableGenius
from providers.contract import Capability, Delivery, Statement
from providers.errors import ProviderError
from sandbox.config import SandboxConfig
from sandbox.config import StableGenius as StableGeniusConfig
from sandbox.server import running
from statemachine.phases import Source
from tests.contract.providers.list_contract import BEGIN
from tests.contract.providers.test_lists import INTENT, SECRETS, act, behind
from tests.support.at_the_sandbox import line, now, shop

QUIET = SandboxConfig(stable_genius=StableGeniusConfig(test_requests_per_minute=100_000))
OPTIONS = {"merchant_id": "mer_sandbox", "events_path": "/events", "webhook_path": "/webhooks"}
PROVIDER = StableGenius.with_options(**OPTIONS, allow_loopback_http=True)


def at(url, work):
    """The result of `work(client)` at that sandbox."""

    async def working():
        async with line(PROVIDER, url + "/stable-genius/v1", SECRETS["stable_genius"]) as found:
            return await work(found.client)

    return asyncio.run(working())


async def walk(client, position=None):
    """Every page from there on."""
    pages = [await client.journal_page(BEGIN, position)]
    while pages[-1].has_more:
        pages.append(await client.journal_page(BEGIN, pages[-1].position))
    return pages


def test_only_an_account_that_names_the_path_has_a_journal():
    """Stable Genius documents no such list; the sandbox has one as an extension."""
    assert PROVIDER.can(Capability.JOURNAL)
    assert not StableGenius.with_options().can(Capability.JOURNAL)


def test_the_journal_holds_what_the_webhooks_say_under_their_keys():
    """Every delivery is an event of the log with the same key, bytes and reading, and there are no others."""
    with running(QUIET) as place, shop() as ours:

        async def conversation(client):
            await client.register_webhook(ours.url)
            refs = await asyncio.to_thread(behind, place.base_url, "stable_genius", "payment_intent", [INTENT] * 3)
            for ref, actions in zip(refs, (["pay", "settle"], ["cancel"], ["expire"]), strict=True):
                for action in actions:
                    await asyncio.to_thread(act, place.base_url, "stable_genius", "payment_intent", ref, action)
            deliveries = await asyncio.to_thread(ours.wait_for, 5)
            return deliveries, await walk(client)

        deliveries, pages = at(place.base_url, conversation)
    sent = {PROVIDER.delivery_key(delivery): delivery.body for delivery in deliveries}
    logged = {PROVIDER.delivery_key(Delivery(body, ())): body for page in pages for body in page.events}
    assert logged == sent
    for body in logged.values():
        as_webhook, as_logged = (
            PROVIDER.parse(Statement(source, body, now())) for source in (Source.WEBHOOK, Source.JOURNAL)
        )
        assert [o.status for o in as_webhook.observations] == [o.status for o in as_logged.observations]
        assert (as_webhook.hints, as_webhook.note) == (as_logged.hints, as_logged.note)


def test_a_position_goes_on_where_the_page_before_ended():
    """230 events are on pages of at most 100, each once and in order, and what comes later follows."""
    with running(QUIET) as place:
        refs = behind(place.base_url, "stable_genius", "payment_intent", [INTENT] * 116)
        for ref in refs[:115]:
            act(place.base_url, "stable_genius", "payment_intent", ref, "pay")  # a transfer, and its confirmation

        async def conversation(client):
            pages = await walk(client)
            again = await client.journal_page(BEGIN, pages[0].position)
            nothing = await client.journal_page(BEGIN, pages[-1].position)
            await asyncio.to_thread(act, place.base_url, "stable_genius", "payment_intent", refs[115], "cancel")
            return pages, again, nothing, await client.journal_page(BEGIN, pages[-1].position)

        pages, again, nothing, later = at(place.base_url, conversation)
    keys = [PROVIDER.delivery_key(Delivery(body, ())) for page in pages for body in page.events]
    assert [len(page.events) for page in pages] == [100, 100, 30]
    assert len(set(keys)) == 230
    assert again.events == pages[1].events
    assert (nothing.events, nothing.position, nothing.has_more) == ((), None, False)
    assert len(later.events) == 1


def test_a_journal_begins_at_the_instant_that_is_given():
    """Without a position, what was logged before is left out."""
    with running(QUIET) as place:
        (ref,) = behind(place.base_url, "stable_genius", "payment_intent", [INTENT])
        act(place.base_url, "stable_genius", "payment_intent", ref, "cancel")

        async def conversation(client):
            return await client.journal_page(now() + timedelta(seconds=5), None)

        assert at(place.base_url, conversation).events == ()


@pytest.mark.parametrize("position", ["evt_unknown", "a/b?c=d"])
def test_a_position_that_the_provider_does_not_know_is_an_error(position):
    """Nothing is skipped on a guess."""
    with running(QUIET) as place, pytest.raises(ProviderError) as told:
        at(place.base_url, lambda client: client.journal_page(BEGIN, position))
    assert told.value.http_status == 400
