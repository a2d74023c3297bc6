import re

import pytest

from storage import outbox, search
from storage.ids import new_id
from storage.operator_actions import of_subjects
from storage.search import RowFilter
from tests.integration.console.table_rows import owing, rejecting, told

WHO_MAY_NOT = "your role is viewer"
ACTS = [("inbox", "replay"), ("outbox", "redrive"), ("quarantine", "redeem")]


def fields(form):
    return re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form)


def unescaped(pairs):
    return [(name, value.replace("&#39;", "'").replace("&lt;", "<").replace("&amp;", "&")) for name, value in pairs]


def status(console, row_id):
    with console.service.database.read() as unit:
        return outbox.get(unit, row_id).status


def dead(console):
    with console.service.database.read() as unit:
        return search.count(unit, search.OWED, RowFilter({"status": "dead"})).number


@pytest.mark.parametrize(("key", "verb"), ACTS)
def test_a_viewer_sees_no_action_and_is_refused(console, key, verb):
    made = {"inbox": told, "outbox": owing, "quarantine": rejecting}[key](console)
    row_id = getattr(made, "id", made)
    viewer, operator = console.client("viewer"), console.client("operator")

    for path in (f"/console/tables/{key}/list", f"/console/tables/{key}/detail?pk={row_id}"):
        assert f'/{verb}"' not in viewer.get(path).text
        assert f'/{verb}"' in operator.get(path).text
    answer = viewer.post(f"/console/tables/{key}/{verb}", {"id": row_id, "reason": "because"})

    assert answer.status_code == 403
    assert WHO_MAY_NOT in answer.text.lower()


@pytest.mark.parametrize(("key", "verb"), ACTS)
@pytest.mark.parametrize(
    "form",
    [
        {"id": new_id()},
        {"reason": "why"},
        {"id": "x", "reason": "why"},
        {"id": new_id(), "reason": " "},
        {"reason": "w", "csrf": "x"},
    ],
    ids=["no reason", "no row", "no id", "an empty reason", "another's form"],
)
def test_a_form_that_says_too_little_does_nothing(console, key, verb, form):
    row_id = owing(console)
    answer = console.client().post(f"/console/tables/{key}/{verb}", form)

    assert answer.status_code in (400, 403)
    assert status(console, row_id) == "dead"


def test_chosen_effects_are_due_again_with_who_and_why(console):
    operator, chosen, other = console.client(), [owing(console) for _ in range(3)], owing(console)

    answer = operator.post("/console/tables/outbox/redrive", {"id": [*chosen, chosen[0]], "reason": "the shop is back"})

    assert "<strong>3</strong> due again" in answer.text
    assert [status(console, each) for each in [*chosen, other]] == ["pending"] * 3 + ["dead"]
    with console.service.database.read() as unit:
        (done,) = of_subjects(unit, [chosen[0]])
    assert (done.actor, done.reason) == (operator.person.name, "the shop is back")


def test_what_does_not_work_is_told_and_the_rest_is_done(console):
    one, gone = owing(console), new_id()

    answer = console.client().post("/console/tables/outbox/redrive", {"id": [gone, one], "reason": "a <b>reason</b>"})

    assert "<strong>1</strong> due again, <strong>1</strong> not" in answer.text
    assert gone in answer.text
    assert "a &lt;b&gt;reason" in answer.text
    assert "data-onward" not in answer.text


def test_every_dead_effect_is_redriven_step_by_step(console, monkeypatch):
    monkeypatch.setattr("console.tables.bulk_actions._MAX_ROWS", 2)
    for sink in ("shop", "shop", "shop", "books", "shop", "shop"):
        owing(console, sink=sink)
    operator, form, seen = console.client(), {"all": "1", "sink": "shop", "reason": "it's back"}, []

    while form:
        page = operator.post("/console/tables/outbox/redrive", form).text
        seen.append(dead(console))
        onward = re.search(r"<form[^>]*data-onward>(.*?)</form>", page, re.DOTALL)
        form = dict(unescaped(fields(onward[1]))) if onward else None

    assert seen == [4, 2, 1]
    assert "<strong>5</strong> due again" in page
    assert 'max="5" value="5"' in page


def test_what_takes_long_goes_on_where_it_was(console, monkeypatch):
    monkeypatch.setattr("console.tables.bulk_actions._STEP_TIME_S", -1.0)
    row_id = owing(console)
    page = console.client().post("/console/tables/outbox/redrive", {"id": row_id, "reason": "why"}).text

    assert status(console, row_id) == "dead"
    assert f'name="id" value="{row_id}"' in page
    assert "about 1 to go" in page


def test_all_are_meant_of_effects_only(console):
    answer = console.client().post("/console/tables/inbox/replay", {"all": "1", "reason": "why"})

    assert answer.status_code == 400


def test_a_chosen_message_is_applied_once_more(console):
    message = told(console, "parked")
    page = console.client().post("/console/tables/inbox/replay", {"id": message.id, "reason": "why"}).text

    assert "<strong>1</strong> replayed" in page
    with console.service.database.read() as unit:
        assert [done.action for done in of_subjects(unit, [message.id])] == ["replay"]


def test_what_is_still_not_authentic_stays(console):
    row_id = rejecting(console)
    page = console.client().post("/console/tables/quarantine/redeem", {"id": row_id, "reason": "why"}).text

    assert "<strong>0</strong> authentic now, <strong>1</strong> not" in page
    assert row_id in console.client("viewer").get("/console/tables/quarantine/list").text
