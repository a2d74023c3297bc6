"""What every list must do, as checks that any client at the sandbox can be put through; each is given a Listing.

`test_lists.py` puts the providers through them, and proves of each check that a broken client fails it.
"""

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from msgspec import structs

from providers.contract import Client, Page, Provider, Statement
from statemachine.observation import Observation
from statemachine.phases import Source

BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)

#: No list here has more pages; a walk that is longer goes round in a circle.
MOST_PAGES = 60


@dataclass(frozen=True)
class Listing:
    """One account's list, and what is truly on it."""

    provider: Provider
    client: Client
    created: Mapping[str, datetime]  #: when each thing was created, by its id
    margin: timedelta = timedelta(0)  #: how much more than asked for may come at either edge

    @property
    def end(self) -> datetime:
        """After everything."""
        return max(self.created.values()) + timedelta(hours=1)

    async def walk(self, since: datetime, until: datetime) -> list[Page]:
        """Every page of the window; AssertionError where there is no end, or a fault."""
        pages, position = [], None
        while True:
            page = await self.client.list_page(since, until, position)
            pages.append(page)
            assert not page.fault, page.fault
            assert page.count == len(ids_on(page)), f"{page.count} said to be {len(ids_on(page))}"
            if page.next is None:
                return pages
            assert len(pages) < MOST_PAGES, "the list has no end"
            position = page.next

    def read(self, page: Page) -> tuple[Observation, ...]:
        """What the page says, read as the worker reads it."""
        answer = page.answer
        statement = Statement(Source.LIST, answer.body, answer.asked_at, answer.kind, answer.ref, answer.status)
        reading = self.provider.parse(statement)
        assert not reading.unreadable, reading.unreadable
        return reading.observations


def ids_on(page: Page) -> list[str]:
    """The ids of the things on a page, read without our parsers."""
    told = json.loads(page.answer.body)
    return [thing["id"] for thing in (told if isinstance(told, list) else told["data"])]


async def check_a_window_holds_what_was_created_in_it(listing: Listing) -> None:
    """For any window: everything created from its beginning to before its end is on the pages, and nothing else."""
    instants = sorted(listing.created.values())
    chance = random.Random(20260401)
    edges = [BEGIN, instants[0], instants[0] + TICK, instants[-1], instants[-1] + TICK, listing.end]
    windows = [(BEGIN, listing.end), (instants[0], instants[-1]), (instants[0] + TICK, instants[-1] + TICK)]
    for _ in range(10):
        first, last = sorted(chance.choice([*edges, *instants]) for _ in range(2))
        windows.append((first, last + chance.choice([timedelta(0), TICK])))
    for since, until in windows:
        found = [ref for page in await listing.walk(since, until) for ref in ids_on(page)]
        missing = {ref for ref, at in listing.created.items() if since <= at < until} - set(found)
        assert not missing, f"{len(missing)} of the window are on no page"
        edge = listing.margin
        strange = [ref for ref in found if not since - edge <= listing.created[ref] < until + edge]
        assert not strange, f"{len(strange)} are not of the window"
        assert edge or len(found) == len(set(found)), "a thing is on two pages"


async def check_a_page_says_what_asking_says(listing: Listing) -> None:
    """Each payment on the pages is read exactly as a GET of it is, but for its source and the instant of asking."""
    seen = [each for page in await listing.walk(BEGIN, listing.end) for each in listing.read(page)]
    for told in {each.provider_ref: each for each in seen}.values():
        assert told.kind is not None, "an observation about nothing"
        assert told.provider_ref is not None, "an observation about nothing"
        answer = await listing.client.fetch(told.kind, told.provider_ref)
        reading = listing.provider.parse(
            Statement(Source.POLL, answer.body, answer.asked_at, answer.kind, answer.ref, answer.status)
        )
        (asked,) = reading.observations
        assert told.as_of is not None, "an answer is true of the instant at which it was asked for"
        assert structs.replace(asked, source=Source.LIST, as_of=told.as_of) == told, f"{told} is not {asked}"


async def check_a_repeat_is_harmless(listing: Listing) -> None:
    """A page that is asked for again is the same page and leads on to the same place, also between other pages."""
    pages = await listing.walk(BEGIN, listing.end)
    assert len(pages) > 1, "there is nothing to repeat on one page"
    for position, page in [*zip([None, *(page.next for page in pages)], pages, strict=False)][::-1]:
        for _ in range(2):
            again = await listing.client.list_page(BEGIN, listing.end, position)
            assert (again.answer.body, again.next) == (page.answer.body, page.next), "another page than before"


CHECKS: tuple[Callable[[Listing], object], ...] = (
    check_a_window_holds_what_was_created_in_it,
    check_a_page_says_what_asking_says,
    check_a_repeat_is_harmless,
)
