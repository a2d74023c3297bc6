"""Commands that only look: lifecycles, settings, webhooks."""

import re

import pytest

from receipted.cli.exits import Exit
from receipted.wiring import PROVIDERS
from tests.support.answering import Reply, answering
from tests.support.settings_file import write_settings

from .conftest import Shell

NOTHING = Shell(None)


def test_every_lifecycle_is_listed_with_its_states_and_moves():
    """The lists are the data that decides, for each kind at each provider."""
    listed = {entry["name"]: entry for entry in NOTHING("lifecycles", "--json").json}

    known = [lifecycle for provider in PROVIDERS.values() for lifecycle in provider.lifecycles.values()]
    assert set(listed) == {lifecycle.name for lifecycle in known}
    for lifecycle in known:
        entry = listed[lifecycle.name]
        assert [state["name"] for state in entry["states"]] == [state.name for state in lifecycle.states]
        assert entry["moves"] == {source: list(targets) for source, targets in lifecycle.moves.items()}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_diagrams_are_drawn_from_the_data(provider):
    """Every state and every move is in the provider's diagrams, once, under an identifier that Mermaid takes."""
    drawn = NOTHING("lifecycles", provider, "--mermaid").out
    lifecycles = PROVIDERS[provider].lifecycles.values()

    moves = re.findall(r"^    (\w+) --> (\w+)$", drawn, re.MULTILINE)
    states = re.findall(r'^    state "(.+) \((\w+)\)" as (\w+)$', drawn, re.MULTILINE)
    assert len(moves) == sum(len(targets) for lifecycle in lifecycles for targets in lifecycle.moves.values())
    assert [(name, phase) for name, phase, _ in states] == [
        (state.name, state.phase.value) for lifecycle in lifecycles for state in lifecycle.states
    ]
    assert drawn.count("stateDiagram-v2") == len(lifecycles)


def test_the_table_says_what_a_state_means_and_may_become():
    """People see phases and moves beside each state."""
    assert re.search(r"pending +open +yes +success, failed, canceled, expired", NOTHING("lifecycles", "payfield").out)


def test_a_summary_of_the_settings_shows_no_secret(shell):
    """config check ends with 0 and shows where things are, never what a secret is."""
    service = shell.service()
    values = set(service.settings.secret_values())
    service.close()

    plain, data = shell("config", "check"), shell("config", "check", "--json")

    assert "the settings can work" in plain.out
    assert "http://127.0.0.1:8000/webhooks/stable" in plain.out
    assert data.json["ok"] is True
    for value in values:
        assert value not in plain.out + plain.err + data.out + data.err


def test_the_environment_names_the_settings(shell, monkeypatch):
    """Without --config, RECEIPTED_CONFIG's file is read."""
    monkeypatch.setenv("RECEIPTED_CONFIG", str(shell.config))

    assert NOTHING("payments", "list", "--json").json == []


@pytest.mark.parametrize("account", ["alternative", "banked"])
def test_a_webhook_is_registered_with_the_accounts_own_key(at_sandbox, account):
    """The provider is told our URL and the key to sign with; its answer is shown only when asked for."""
    told = at_sandbox("webhooks", "register", account, "--json").json

    assert told["url"] == f"http://127.0.0.1:8000/webhooks/{account}"
    assert 200 <= told["http_status"] < 300
    assert "answer" not in told
    assert "answer" in at_sandbox("webhooks", "register", account, "--show-answer", "--json").json


def test_a_kind_may_have_a_url_of_its_own(at_sandbox):
    """Where bodies do not tell kinds apart, the URL does; a kind that does not exist is refused."""
    told = at_sandbox("webhooks", "register", "banked", "--kind", "payin", "--json").json
    assert told["url"].endswith("/webhooks/banked?kind=payin")

    assert "has no 'nothing'" in at_sandbox("webhooks", "register", "banked", "--kind", "nothing", code=Exit.USAGE).err


UNCLEAR = {
    "a page": Reply(200, b"<html>Just a moment...</html>"),
    "nothing": Reply(200),
    "an error object": Reply(200, b'{"error": {"code": "internal"}}'),
    "an error list": Reply(201, b'{"errors": [{"code": "internal"}]}'),
    "a redirect": Reply(302),
}


@pytest.mark.parametrize("reply", UNCLEAR.values(), ids=UNCLEAR)
def test_an_answer_that_says_nothing_is_no_registration(tmp_path, reply):
    with answering() as provider:
        shell = Shell(write_settings(tmp_path, provider.url)).migrated()
        provider.answers = lambda _call: reply
        told = shell("webhooks", "register", "banked", code=Exit.FAILED)

        assert len(provider.calls) == 1
        assert str(reply.status) in told.err
