"""Further names that a page reads, and the kinds that they are of."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from providers.contract import ProviderOptions, Statement
from providers.engine import page
from providers.engine.pointers import InvalidPage
from providers.engine.provider import declared
from statemachine.phases import Source

NOW = datetime(2026, 4, 1, 10, 0, tzinfo=UTC)
PAGE = """
[provider]
name = "acme"
title = "Acme"
source = "a test"
base_url = "https://api.example.com"
default_kind = "order"
[money]
unit = "minor"
[signature]
mode = "none"
[[events.rule]]
as = "state"
when = { "/charge" = "exists" }
object = "/charge"
kind = "charge"
names = ["/order"]
[[events.rule]]
as = "ask"
when = { "/about" = "exists" }
object = "/about"
kind = "order"
names = ["/charge"]
[kind.order]
id = "/id"
status = "/status"
names = ["/charge/id", "/session"]
attempts = true
initial = ["paid"]
states = { paid = "paid!" }
[kind.charge]
belongs_to = "order"
id = "/id"
status = "/status"
names = ["/intent"]
initial = ["taken"]
states = { taken = "paid!" }
"""


def read(body: object, source: Source = Source.WEBHOOK, text: str = PAGE) -> tuple[str, ...]:
    provider = declared(page.parse(text, "acme.toml", Path()))(ProviderOptions())
    statement = Statement(source, json.dumps(body).encode(), NOW, kind="order" if source is Source.POLL else None)
    (seen,) = provider.parse(statement).observations
    return seen.names


def test_an_answer_tells_further_names_once_each():
    thing = {"id": "o_1", "status": "paid", "charge": {"id": "ch_1"}, "session": "ch_1"}
    assert read(thing, Source.POLL) == ("ch_1",)


def test_a_rule_tells_names_beside_those_of_its_kind():
    assert read({"charge": {"id": "ch_1", "status": "taken", "intent": "o_2", "order": "o_1"}}) == ("o_2", "o_1")


def test_what_is_asked_about_is_named_too():
    assert read({"about": {"id": "o_1", "charge": "ch_1"}}) == ("ch_1",)


def test_the_page_says_which_kinds_have_names_and_attempts():
    lifecycles = declared(page.parse(PAGE, "acme.toml", Path()))(ProviderOptions()).lifecycles
    assert (lifecycles["order"].has_names, lifecycles["order"].has_attempts) == (True, True)
    assert (lifecycles["charge"].has_attempts, lifecycles["charge"].belongs_to) == (False, "order")


@pytest.mark.parametrize("other", ["charge", "nothing"])
def test_a_kind_belongs_to_another_kind_of_the_page(other):
    with pytest.raises(InvalidPage, match="is no other kind of this page"):
        declared(page.parse(PAGE.replace('"order"\nid', f'"{other}"\nid'), "acme.toml", Path()))(ProviderOptions())
