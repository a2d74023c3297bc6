"""A trial is told from whatever a provider says, and is as large as it is wanted."""

import json

import pytest

from providers import trial


@pytest.mark.parametrize("size", [0, 100, 5000, 262_144])
def test_a_trial_is_json_of_at_least_that_size_and_known_as_one(size):
    body = trial.body("one", size=size)

    assert len(body) == max(size, len(trial.body("one")))
    assert json.loads(body)["receipted_trial"] == "one"
    assert trial.is_trial(body)


def test_writing_its_json_anew_changes_it():
    body = trial.body("one")

    assert json.dumps(json.loads(body)).encode() != body
    assert json.dumps(json.loads(body), separators=(",", ":"), ensure_ascii=False).encode() != body


@pytest.mark.parametrize("body", [b"", b"{}", b'{"id":"receipted_trial"}', b' {"receipted_trial":1}'])
def test_nothing_else_is_one(body):
    assert not trial.is_trial(body)
