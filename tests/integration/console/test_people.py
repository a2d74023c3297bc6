"""People see to their own sessions and passwords, and admins to people."""

import re

import pytest

from service.passwords import matches_hash
from storage import console_sessions, console_users, operator_actions
from tests.integration.console.test_login import log_in
from tests.support.console import PASSWORD

NEW = "another phrase of many letters"


def person(console, found):
    with console.service.database.read() as unit:
        return console_users.get(unit, found.id)


def sessions(console, found):
    with console.service.database.read() as unit:
        return [one for one in console_sessions.of_person(unit, found.id) if one.revoked_at is None]


def change(browser, current=PASSWORD, new=NEW, again=None):
    given = {"current": current, "new": new, "again": new if again is None else again}
    return browser.post("/console/me/password", given)


def test_another_password_ends_every_other_session_and_gives_this_browser_a_new_one(console):
    found = console.person("viewer")
    here, there = console.client(person=found), console.client(person=found)
    old = here.http.cookies["receipted"]

    assert change(here).status_code == 303
    assert here.http.cookies["receipted"] != old
    assert here.get("/console/me").status_code == 200
    assert there.get("/console/me").status_code == 303
    assert log_in(console.client(None), found.name).status_code == 401
    assert log_in(console.client(None), found.name, NEW).status_code == 303


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"current": "wrong password"}, "current password is wrong"),
        ({"again": "something else here"}, "same twice"),
        ({"new": "short"}, "at least 12"),
        ({"new": "x" * 300}, "at most"),
        ({"new": "aaaaaaaaaaaaaaa"}, "too few different"),
    ],
    ids=["wrong", "typo", "short", "long", "same"],
)
def test_a_password_that_may_not_be_is_refused_in_words(console, given, words):
    browser = console.client("viewer")
    answer = change(browser, **given)

    assert answer.status_code in (400, 401)
    assert words in answer.text
    assert matches_hash(PASSWORD, person(console, browser.person).password_hash)
    assert browser.get("/console/me").status_code == 200


def test_a_stolen_session_may_not_guess_the_password(console):
    browser = console.client("viewer")
    answers = [change(browser, current="wrong password").status_code for _ in range(11)]

    assert answers == [401] * 10 + [429]
    assert change(browser).status_code == 429


def test_a_person_ends_their_own_sessions_and_nobody_elses(console):
    found = console.person("operator")
    here, there, other = console.client(person=found), console.client(person=found), console.client("operator")
    (theirs,), (mine,) = (
        sessions(console, other.person),
        [one for one in sessions(console, found) if one.id in there_id(console, there)],
    )

    assert here.post(f"/console/me/sessions/{theirs.id}/revoke").status_code == 404
    assert other.get("/console/me").status_code == 200
    assert here.post(f"/console/me/sessions/{mine.id}/revoke").status_code == 303
    assert there.get("/console/me").status_code == 303
    assert here.get("/console/me").status_code == 200


def there_id(console, browser):
    """The id of the session that a browser has."""
    from console.signing import digest_of

    with console.service.database.read() as unit:
        return [console_sessions.by_digest(unit, digest_of(browser.secret))[0].id]


def test_logging_out_everywhere_else_leaves_this_browser(console):
    found = console.person("viewer")
    here, others = console.client(person=found), [console.client(person=found) for _ in range(3)]

    answer = here.post("/console/me/sessions/revoke")

    assert "3 other sessions have ended" in here.follow(answer).text
    assert [browser.get("/console/me").status_code for browser in (here, *others)] == [200, 303, 303, 303]


def test_an_admin_adds_somebody_whose_password_is_shown_once_and_changed_first(console):
    admin = console.client("admin")
    answer = admin.post("/console/people", {"name": "Grace", "role": "operator"})
    (password,) = re.findall(r'<code class="secret">([^<]+)</code>', answer.text)

    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert password not in admin.get("/console/people").text
    browser = console.client(None)
    log_in(browser, "grace", password)
    assert browser.get("/console/").headers["location"] == "/console/me"
    assert "Somebody gave you your password" in browser.get("/console/me").text
    browser.secret = _secret(console, browser)
    assert browser.post("/console/payments/x/refresh").status_code == 403
    assert change(browser, password).status_code == 303
    assert "Somebody gave you your password" not in browser.get("/console/me").text
    assert browser.get("/console/nothing").status_code == 404


def _secret(console, browser):
    from console.signing import ConsoleSigner
    from receipted.web_wiring import signing_keys

    return ConsoleSigner(signing_keys(console.service)).secret(browser.http.cookies["receipted"])


def test_an_admin_gives_a_new_password_which_ends_what_was_open(console):
    admin, other = console.client("admin"), console.client("viewer")
    answer = admin.post(f"/console/people/{other.person.id}/password")
    (password,) = re.findall(r'<code class="secret">([^<]+)</code>', answer.text)

    assert other.get("/console/me").status_code == 303
    assert matches_hash(password, person(console, other.person).password_hash)
    assert person(console, other.person).is_temporary


def test_whoever_is_disabled_is_out_at_once_and_may_come_back(console):
    admin, other = console.client("admin"), console.client("operator")

    admin.post(f"/console/people/{other.person.id}/disable", {"reason": "has left"})
    assert other.get("/console/me").status_code == 303
    assert log_in(console.client(None), other.person.name).status_code == 401
    admin.post(f"/console/people/{other.person.id}/enable", {"reason": "is back"})
    assert other.get("/console/me").status_code == 303  # the old session stays over
    assert log_in(console.client(None), other.person.name).status_code == 303
    with console.service.database.read() as unit:
        kept = operator_actions.of_subjects(unit, [other.person.id])
    assert [(done.actor, done.action, done.reason) for done in kept] == [
        (admin.person.name, "disable person", "has left"),
        (admin.person.name, "enable person", "is back"),
    ]


def test_another_role_counts_from_the_next_request_on(console):
    admin, other = console.client("admin"), console.client("viewer")
    assert other.get("/console/people").status_code == 403
    admin.post(f"/console/people/{other.person.id}/role", {"role": "admin"})
    assert other.get("/console/people").status_code == 200
    admin.post(f"/console/people/{other.person.id}/role", {"role": "viewer"})
    assert other.get("/console/people").status_code == 403


def test_somebody_stays_who_sees_to_people(console):
    admin, other = console.client("admin"), console.person("admin")
    own = f"/console/people/{admin.person.id}"

    assert admin.post(f"{own}/disable", {"reason": "x"}).status_code == 400
    admin.post(f"/console/people/{other.id}/disable", {"reason": "x"})
    answer = admin.post(f"{own}/role", {"role": "viewer"})
    assert answer.status_code == 400
    assert "the only admin" in answer.text
    assert person(console, admin.person).role == "admin"


@pytest.mark.parametrize("given", [{"name": "", "role": "viewer"}, {"name": "x y", "role": "viewer"}, {"name": "ok"}])
def test_somebody_needs_a_name_and_a_role(console, given):
    answer = console.client("admin").post("/console/people", given)

    assert answer.status_code == 400
    assert "secret" not in answer.text


def test_two_people_do_not_share_a_name(console):
    console.person("viewer", "ada")
    answer = console.client("admin").post("/console/people", {"name": "ADA", "role": "admin"})

    assert answer.status_code == 409
    assert "already" in answer.text


def test_sessions_that_ended_long_ago_are_forgotten(tmp_path, template):
    from tests.support.clock import FakeClock
    from tests.support.console import on_sqlite

    clock = FakeClock()
    with on_sqlite(tmp_path, template, clock=clock) as served:
        found = served.person("viewer")
        served.client(person=found)
        clock.advance(32 * 86_400)
        served.client(person=found)
        with served.service.database.read() as unit:
            assert len(console_sessions.of_person(unit, found.id)) == 1


def test_a_disabled_person_has_no_session_whatever_became_of_its_row(console):
    browser = console.client("admin")
    with console.service.database.write() as unit:
        console_users.disable(unit, browser.person.id, console.service.clock())

    assert browser.get("/console/me").status_code == 303
