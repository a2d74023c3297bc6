"""The providers' lists over a real sandbox, under the contract that every list keeps, and proof that it bites."""

import asyncio
import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from providers.banked.options import BankedOptions
from providers.banked.provider import Banked
from providers.catalogue import AlternativePayments, Payfield, StableGenius
from providers.contract import Statement
from providers.errors import ProviderError, UnsupportedByProvider
from sandbox.config import AlternativePayments as AlternativePaymentsConfig
from sandbox.config import SandboxConfig
from sandbox.config import StableGenius as StableGeniusConfig
from sandbox.server import running
from statemachine.phases import Source
from tests.contract.providers import list_contract
from tests.contract.providers.list_contract import BEGIN, CHECKS, Listing, ids_on
from tests.support.at_the_sandbox import control, line

SECRETS = {
    "stable_genius": {"api_key": "sk_test_sandbox_0001"},
    "alternative_payments": {
        "client_id": "ap_client_sandbox_0001",
        "client_secret": "ap_client_secret_sandbox_0001",
    },
    "banked": {"api_key": "bk_test_sandbox_0001", "api_secret": "sk_test_banked_sandbox_0001"},
    "payfield": {"api_key": "pf_key_sandbox_new_0001", "api_secret": "pf_api_secret_sandbox_new_0001"},
}
PATHS = {"stable_genius": "/stable-genius/v1", "alternative_payments": "/alternative-payments", "banked": "/banked"}
FILTERS = {"list_after": "created_after", "list_before": "created_before"}
PAYINS = BankedOptions(list_path="/v3/payins", list_kind="payin", allow_loopback_http=True, **FILTERS)
INTENT = {"amount": 4.5, "currency": "usd", "merchant_id": "mer_sandbox", "ttl": 3600}
REQUEST = {"amount": "1250", "currency": "USD", "redirect_url": "https://shop.example/thanks"}
PAYIN = {"amount": 400, "currency": "GBP", "checkout_config": {"redirect_url": "https://shop.example/thanks"}}
SESSION = {"amount": 400, "currency": "GBP", "success_url": "https://a.example/", "error_url": "https://b.example/"}
QUIET = SandboxConfig(
    alternative_payments=AlternativePaymentsConfig(requests_per_second=100_000),
    stable_genius=StableGeniusConfig(test_requests_per_minute=100_000),
)


def behind(url, provider, kind, bodies):
    """Create payments behind Receipted's back; their refs in order."""
    return control(url, "POST", "create", {"provider": provider, "kind": kind, "bodies": bodies})["refs"]


def act(url, provider, kind, ref, action):
    control(url, "POST", "act", {"provider": provider, "kind": kind, "ref": ref, "action": action})


def created_at(url, refs):
    """When the sandbox says that each was created."""
    truth = {row["ref"]: row for row in control(url, "GET", "truth")}
    return {ref: datetime.fromisoformat(truth[ref]["history"][0][1]) for ref in refs}


def at(url, provider, work):
    """The result of `work(client)`, an async function, for a client at the sandbox."""

    async def working():
        async with line(provider, url + PATHS.get(provider.name, "/payfield"), SECRETS[provider.name]) as found:
            return await work(found)

    return asyncio.run(working())


@pytest.fixture(scope="module")
def intents():
    """230 intents in every state, 5 of them another merchant's."""
    with running(QUIET) as place:
        bodies = [INTENT | {"metadata": {"reference": f"order-{n}"}} for n in range(230)]
        others = [INTENT | {"merchant_id": "mer_second"}] * 5
        behind(place.base_url, "stable_genius", "payment_intent", others)
        refs = behind(place.base_url, "stable_genius", "payment_intent", bodies)
        for n, actions in enumerate([["pay"], ["pay", "settle"], ["cancel"], ["expire"]] * 20):
            for action in actions:
                act(place.base_url, "stable_genius", "payment_intent", refs[n], action)
        yield place.base_url, StableGenius.with_options(merchant_id="mer_sandbox"), refs, timedelta(0)


@pytest.fixture(scope="module")
def payins():
    """230 payins, some of them paid."""
    with running(QUIET) as place:
        behind(place.base_url, "banked", "payment_session", [SESSION])
        refs = behind(place.base_url, "banked", "payin", [PAYIN] * 230)
        for ref in refs[::7]:
            act(place.base_url, "banked", "payin", ref, "pay")
        yield place.base_url, Banked(PAYINS), refs, timedelta(seconds=1)


@pytest.fixture(params=["intents", "payins"])
def listed(request):
    return request.getfixturevalue(request.param)


def checked(found, check, broken=lambda client: client):
    """Put the client at that sandbox through a check."""
    url, provider, refs, margin = found
    created = created_at(url, refs)
    return at(url, provider, lambda found: check(Listing(provider, broken(found.client), created, margin)))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(listed, check):
    """The list keeps the promise that the check's first line states."""
    checked(listed, check)


class Broken:
    """A client's list, to be broken in one way."""

    def __init__(self, client):
        self.client = client

    async def fetch(self, kind, ref):
        return await self.client.fetch(kind, ref)

    async def list_page(self, since, until, position):
        return await self.client.list_page(since, until, position)


class LosesTheFirstInstant(Broken):
    async def list_page(self, since, until, position):
        return await self.client.list_page(since + list_contract.TICK, until, position)


class TakesTheLastInstant(Broken):
    async def list_page(self, since, until, position):
        return await self.client.list_page(since, until + list_contract.TICK, position)


class LosesTheLastInstant(Broken):
    async def list_page(self, since, until, position):
        return await self.client.list_page(since, until - list_contract.TICK, position)


class ForgetsTheWindow(Broken):
    async def list_page(self, since, until, position):
        return await self.client.list_page(BEGIN, until + timedelta(days=1), position)


class StopsAfterAPage(Broken):
    async def list_page(self, since, until, position):
        return replace(await self.client.list_page(since, until, position), next=None)


class SkipsAPage(Broken):
    async def list_page(self, since, until, position):
        page = await self.client.list_page(since, until, position)
        if position is None and page.next is not None:
            return replace(page, next=(await self.client.list_page(since, until, page.next)).next)
        return page


class StartsOver(Broken):
    async def list_page(self, since, until, position):
        return await self.client.list_page(since, until, None)


class GoesOnByItself(Broken):
    position = None

    async def list_page(self, since, until, position):
        page = await self.client.list_page(since, until, self.position if position else None)
        self.position = page.next
        return page


class Miscounts(Broken):
    async def list_page(self, since, until, position):
        page = await self.client.list_page(since, until, position)
        return replace(page, count=page.count + 1)


class FetchesAnother(Broken):
    """What a list that says something else than a GET looks like from here."""

    async def fetch(self, kind, ref):
        answer = await self.client.fetch(kind, ref)
        return replace(answer, body=answer.body.replace(b'"confirmed"', b'"settled"'))


FAULTS = [
    (LosesTheFirstInstant, "check_a_window_holds_what_was_created_in_it"),
    (TakesTheLastInstant, "check_a_window_holds_what_was_created_in_it"),
    (LosesTheLastInstant, "check_a_window_holds_what_was_created_in_it"),
    (ForgetsTheWindow, "check_a_window_holds_what_was_created_in_it"),
    (StopsAfterAPage, "check_a_window_holds_what_was_created_in_it"),
    (SkipsAPage, "check_a_window_holds_what_was_created_in_it"),
    (StartsOver, "check_a_window_holds_what_was_created_in_it"),
    (Miscounts, "check_a_window_holds_what_was_created_in_it"),
    (GoesOnByItself, "check_a_repeat_is_harmless"),
    (FetchesAnother, "check_a_page_says_what_asking_says"),
]


@pytest.mark.parametrize(("broken", "check"), FAULTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_fault_is_found(intents, broken, check):
    """A list with one fault fails the check that is there for it."""
    with pytest.raises(AssertionError):
        checked(intents, getattr(list_contract, check), broken)


def test_every_check_has_bitten():
    """There is no check that has never been seen to fail."""
    assert {check.__name__ for check in CHECKS} == {check for _, check in FAULTS}


@pytest.mark.parametrize("shape", ["flat", "nested"])
def test_the_log_of_events_names_every_payment_that_something_happened_to(shape):
    """Alternative Payments' events of any window are on the pages, in either envelope, and hint at their requests."""
    own = AlternativePaymentsConfig(requests_per_second=100_000, page_shape=shape)
    provider = AlternativePayments.with_options()
    with running(SandboxConfig(alternative_payments=own)) as place:
        refs = behind(place.base_url, "alternative_payments", "payment_request", [REQUEST] * 140)
        for ref in refs[:130]:
            act(place.base_url, "alternative_payments", "payment_request", ref, "pay")

        async def conversation(found):
            listing = Listing(provider, found.client, {"": datetime.now(BEGIN.tzinfo)})
            pages = await listing.walk(BEGIN, listing.end)
            events = [event for page in pages for event in json.loads(page.answer.body)["data"]]
            created = {event["id"]: datetime.fromisoformat(event["created_at"]) for event in events}
            every = replace(listing, created=created)
            await list_contract.check_a_window_holds_what_was_created_in_it(every)
            await list_contract.check_a_repeat_is_harmless(every)
            return pages

        pages = at(place.base_url, provider, conversation)
    hints = set()
    for page in pages:
        answer = page.answer
        reading = provider.parse(
            Statement(Source.LIST, answer.body, answer.asked_at, answer.kind, answer.ref, answer.status)
        )
        assert reading.observations == ()
        hints |= set(reading.hints)
    assert [page.count for page in pages] == [100, 30]
    assert set(refs[:130]) <= hints
    assert not set(refs[130:]) & hints


UNSUPPORTED = [
    Payfield.with_options(),
    Banked(BankedOptions()),
    AlternativePayments.with_options(events_path=None),
]


@pytest.mark.parametrize("provider", UNSUPPORTED, ids=lambda provider: provider.name)
def test_a_provider_without_a_list_says_so_and_is_not_asked(provider):
    """Where no list is documented, none is asked for."""

    async def conversation(found):
        with pytest.raises(UnsupportedByProvider):
            await found.client.list_page(BEGIN, BEGIN + timedelta(days=1), None)
        return found.sent.sent

    assert at("http://127.0.0.1:9", provider, conversation) == []


def test_pages_that_are_too_large_are_asked_for_in_parts(quiet_url):
    """Intents whose page would be larger than an answer may be are listed all the same, on smaller pages."""
    large = {"metadata": {f"note {n}": "\U0001f4b6" * 500 for n in range(9)}, "merchant_id": "mer_second"}
    refs = behind(quiet_url, "stable_genius", "payment_intent", [INTENT | large] * 130)
    provider = StableGenius.with_options(merchant_id="mer_second")

    async def conversation(found):
        listing = Listing(provider, found.client, created_at(quiet_url, refs))
        return await listing.walk(BEGIN, listing.end), len(found.sent.sent)

    pages, sent = at(quiet_url, provider, conversation)
    assert [ref for page in pages for ref in ids_on(page)] == refs[::-1]
    assert [page.count for page in pages] == [50, 50, 30]
    assert sent == 4, "the smaller page is remembered"


@pytest.fixture(scope="module")
def quiet_url():
    with running(QUIET) as place:
        yield place.base_url


def test_a_list_of_sessions_without_named_filters_ends_with_a_fault(quiet_url):
    """More sessions than a page of Banked's holds are never taken for all of them."""
    refs = behind(quiet_url, "banked", "payment_session", [SESSION] * 99)
    plain = Banked(BankedOptions(list_path="/v2/payment_sessions", allow_loopback_http=True))
    end = max(created_at(quiet_url, refs).values()) + timedelta(hours=1)

    async def first(found):
        return await found.client.list_page(BEGIN, end, None)

    whole = at(quiet_url, plain, first)
    assert (whole.count, whole.next, whole.fault) == (99, None, "")
    refs += behind(quiet_url, "banked", "payment_session", [SESSION])
    cut_off = at(quiet_url, plain, first)
    assert (cut_off.count, cut_off.next) == (100, None)
    assert "list_before" in cut_off.fault


def test_a_list_counts_against_the_limit_and_a_refusal_pauses_the_account():
    """Pages are requests like any others: over the limit they are refused, and the account is paused."""
    limited = replace(QUIET, stable_genius=StableGeniusConfig(test_requests_per_minute=2))
    provider = StableGenius.with_options(merchant_id="mer_sandbox")
    with running(limited) as place:

        async def conversation(found):
            for _ in range(2):
                await found.client.list_page(BEGIN, BEGIN + timedelta(days=1), None)
            with pytest.raises(ProviderError) as caught:
                await found.client.list_page(BEGIN, BEGIN + timedelta(days=1), None)
            return caught.value, found.sent.paused

        error, paused = at(place.base_url, provider, conversation)
    assert (error.http_status, error.may_retry) == (429, True)
    assert paused == [error.retry_after]


@pytest.mark.parametrize("fault", ["api_500", "api_502_503_504", "api_429"])
@pytest.mark.parametrize("name", ["stable_genius", "alternative_payments", "banked"])
def test_a_page_that_fails_is_asked_for_again_by_the_caller(quiet_url, name, fault):
    """An error of the provider is raised, may be retried, and the walk goes on from where it was."""
    providers = {
        "stable_genius": StableGenius.with_options(merchant_id="mer_sandbox"),
        "alternative_payments": AlternativePayments.with_options(),
        "banked": Banked(PAYINS),
    }

    async def conversation(found):
        before = await found.client.list_page(BEGIN, BEGIN + timedelta(days=9999), None)
        control(quiet_url, "PUT", "faults", {fault: 1.0})
        try:
            with pytest.raises(ProviderError) as caught:
                await found.client.list_page(BEGIN, BEGIN + timedelta(days=9999), None)
        finally:
            control(quiet_url, "PUT", "faults", {fault: 0.0})
        after = await found.client.list_page(BEGIN, BEGIN + timedelta(days=9999), None)
        return before, caught.value, after

    before, error, after = at(quiet_url, providers[name], conversation)
    assert error.may_retry
    assert (before.answer.body, before.next) == (after.answer.body, after.next)


def test_a_refused_list_is_named(quiet_url):
    """Without the merchant that the provider requires, and for one that it does not know, the refusal is the answer."""

    async def refused(found):
        with pytest.raises(ProviderError) as caught:
            await found.client.list_page(BEGIN, BEGIN + timedelta(days=1), None)
        return caught.value.provider_code

    nobody = StableGenius.with_options()
    unknown = StableGenius.with_options(merchant_id="mer_unknown")
    assert at(quiet_url, nobody, refused) == "invalid_request"
    assert at(quiet_url, unknown, refused) == "merchant_not_found"
