"""Who said a state, in words: what is not the provider's is never called the provider's."""

import re
from datetime import UTC, datetime

import pytest

from service.payments import said_by
from statemachine.lifecycle import NOT_CREATED
from statemachine.phases import ANSWERS, Source
from storage.tables import Transition
from tests.repo.tree import ROOT

PROVIDERS = ANSWERS | {Source.WEBHOOK, Source.CALLBACK, Source.JOURNAL}

#: What people read: pages, the API's description and answers, the command line.
_READ = [
    *ROOT.joinpath("console").rglob("*.html"),
    *(
        path
        for folder in ("console", "api", "service", "receipted/cli")
        for path in ROOT.joinpath(folder).rglob("*.py")
    ),
]


def _transition(source: str, to_state: str = "sent", *, forced: bool = False, actor: str | None = None) -> Transition:
    return Transition(
        payment_id="p",
        number=1,
        id="t",
        account="banked",
        to_state=to_state,
        phase="paid",
        forced=forced,
        cause="m",
        evidence="",
        source=source,
        actor=actor,
        reason="",
        recorded_at=datetime(2026, 11, 21, tzinfo=UTC),
        prev_hash="",
        hash="",
    )


@pytest.mark.parametrize("source", list(Source))
def test_the_provider_is_named_for_what_it_said_itself_and_for_nothing_else(source):
    actor = "Ada L." if source is Source.OPERATOR else None

    assert said_by(_transition(source, actor=actor)).startswith("the provider") is (source in PROVIDERS)


@pytest.mark.parametrize("forced", [False, True])
def test_an_operator_is_named(forced):
    assert said_by(_transition(Source.OPERATOR, forced=forced, actor="Ada L.")) == "Ada L., an operator"


@pytest.mark.parametrize("source", sorted(ANSWERS))
def test_what_a_policy_forced_is_the_policys(source):
    assert said_by(_transition(source, forced=True)).startswith("our account's policy")


@pytest.mark.parametrize("source", list(Source))
def test_a_state_of_ours_is_never_the_providers(source):
    assert not said_by(_transition(source, NOT_CREATED, actor="Ada L.")).startswith("the provider")


def test_each_way_of_a_provider_is_told_apart():
    assert len({said_by(_transition(source)) for source in PROVIDERS}) == len(PROVIDERS)


def test_a_source_of_a_later_program_is_not_the_providers():
    assert said_by(_transition("oracle")) == "this service (oracle)"


def test_no_sentence_calls_every_state_the_providers_word():
    """A state has the provider's name; who said it is another matter. When a payment expires, only a provider says."""
    pattern = r"(?i)[^\n]*(?:provider's (?:own )?word\b|provider says that (?:it|the payment))[^\n]*"
    found = [(path.name, line) for path in _READ for line in re.findall(pattern, path.read_text())]

    assert len(_READ) > 100
    assert [each for each in found if "by the provider's word; it decides nothing here" not in each[1]] == []
