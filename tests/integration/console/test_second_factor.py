"""The second factor: set up, asked for, taken once, bounded, demanded, reset; and what is kept of it."""

import re
from datetime import timedelta

import pytest
from pyotp import TOTP

from receipted.settings import load
from service.second_factor import RECOVERY_CODES
from storage import console_factors, console_sessions, operator_actions
from storage.database import values
from tests.integration.console.test_login import cookie, fields, log_in
from tests.support.clock import FakeClock
from tests.support.console import PASSWORD, on_sqlite, serving
from tests.support.databases import PostgreSQL
from tests.support.settings_file import write_settings

STEP_S = 30


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def served(tmp_path, template, clock):
    with on_sqlite(tmp_path, template, clock=clock) as made:
        yield made


def secrets_of(page):
    return re.findall(r'<code class="secret">([^<]+)</code>', page)


def begin(browser, password=PASSWORD):
    return browser.post("/console/me/second-factor", {"current": password})


def enrolled(served, clock, role="operator"):
    """Somebody with a second factor: their browser, its app, and the recovery codes."""
    browser = served.client(role)
    key, uri = secrets_of(begin(browser).text)
    totp = TOTP(key.replace(" ", ""))
    assert f"secret={totp.secret}" in uri
    answer = browser.post("/console/me/second-factor/confirm", {"code": totp.at(clock())})
    codes = secrets_of(answer.text)
    clock.advance(STEP_S)
    return browser, totp, codes


def password_typed(served, person):
    browser = served.client(None)
    answer = log_in(browser, person.name)
    assert answer.headers["location"].startswith("/console/login/code")
    return browser


def type_code(browser, code):
    form = browser.get("/console/login/code").text
    return browser.post("/console/login/code", {**fields(form), "code": code})


def actions_of(served, person):
    with served.service.database.read() as unit:
        found = operator_actions.of_subjects(unit, [person.id])
    return {action.action for action in found if action.actor == person.name}


def test_log_in_asks_for_the_code_after_the_password(served, clock):
    browser, totp, codes = enrolled(served, clock)
    assert len(codes) == len(set(codes)) == RECOVERY_CODES
    other = served.client(None)

    asked = log_in(other, browser.person.name, path="/console/login?next=%2Fconsole%2Fme")
    assert asked.headers["location"] == "/console/login/code?next=%2Fconsole%2Fme"
    assert "receipted=" not in " ".join(asked.headers.get_list("set-cookie"))
    assert other.get("/console/").headers["location"] == "/console/login"

    page = other.follow(asked).text
    entered = other.post("/console/login/code", {**fields(page), "code": totp.at(clock())})
    assert entered.headers["location"] == "/console/me"
    assert browser.person.name in other.follow(entered).text


def test_a_code_is_taken_once(served, clock):
    browser, totp, _ = enrolled(served, clock)
    code = totp.at(clock())
    assert type_code(password_typed(served, browser.person), code).status_code == 303

    again = type_code(password_typed(served, browser.person), code)

    assert again.status_code == 401
    clock.advance(STEP_S)
    assert type_code(password_typed(served, browser.person), totp.at(clock())).status_code == 303


@pytest.mark.parametrize(("steps", "status"), [(-2, 401), (-1, 401), (1, 303), (2, 401)])
def test_a_clock_may_be_wrong_by_one_step(served, clock, steps, status):
    browser, totp, _ = enrolled(served, clock)  # the step before was used to confirm
    code = totp.at(clock() + timedelta(seconds=steps * STEP_S))

    assert type_code(password_typed(served, browser.person), code).status_code == status


def test_a_recovery_code_logs_in_once(served, clock):
    browser, _, codes = enrolled(served, clock)
    typed = codes[3].upper().replace("-", " ")

    assert type_code(password_typed(served, browser.person), typed).status_code == 303
    assert type_code(password_typed(served, browser.person), typed).status_code == 401
    assert type_code(password_typed(served, browser.person), codes[4]).status_code == 303
    assert "8 recovery codes are left" in browser.get("/console/me").text
    assert "use recovery code" in actions_of(served, browser.person)


def test_five_wrong_codes_shut_the_second_step_for_a_while(served, clock):
    browser, totp, _ = enrolled(served, clock)
    other = password_typed(served, browser.person)
    assert [type_code(other, "000000").status_code for _ in range(5)] == [401] * 5

    refused = type_code(other, totp.at(clock()))
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0

    clock.advance(served.limits.attempts_window.total_seconds())
    assert type_code(password_typed(served, browser.person), totp.at(clock())).status_code == 303


def test_a_right_code_forgets_the_wrong_ones(served, clock):
    browser, totp, _ = enrolled(served, clock)
    for _ in range(3):
        other = password_typed(served, browser.person)
        for _ in range(4):
            type_code(other, "000000")
        assert type_code(other, totp.at(clock())).status_code == 303
        clock.advance(STEP_S)


def test_the_step_between_ends_by_time_and_with_the_password(served, clock):
    browser, totp, _ = enrolled(served, clock)
    late = password_typed(served, browser.person)
    form = fields(late.get("/console/login/code").text)
    clock.advance(301)
    answer = late.post("/console/login/code", {**form, "code": totp.at(clock())})
    assert answer.headers["location"] == "/console/login"
    assert "receipted=" not in " ".join(answer.headers.get_list("set-cookie"))

    changed = password_typed(served, browser.person)
    form = fields(changed.get("/console/login/code").text)
    new = "another battery staple horse"
    answer = browser.post("/console/me/password", {"current": PASSWORD, "new": new, "again": new})
    assert answer.status_code == 303
    answer = changed.post("/console/login/code", {**form, "code": totp.at(clock())})
    assert answer.headers["location"] == "/console/login"


def test_without_the_password_there_is_no_second_step(served, clock):
    enrolled(served, clock)
    stranger = served.client(None)
    assert stranger.get("/console/login/code").headers["location"] == "/console/login"
    form = fields(stranger.get("/console/login").text)
    answer = stranger.post("/console/login/code", {**form, "code": "000000"})
    assert answer.headers["location"] == "/console/login"


def test_it_counts_only_once_it_is_confirmed(served, clock):
    browser = served.client("viewer")
    key, _ = secrets_of(begin(browser).text)
    wrong = browser.post("/console/me/second-factor/confirm", {"code": "000000"})
    assert "The code is wrong" in browser.follow(wrong).text
    assert log_in(served.client(None), browser.person.name).headers["location"] == "/console/"

    fresh, _ = secrets_of(begin(browser).text)
    old = TOTP(key.replace(" ", "")).at(clock())
    browser.post("/console/me/second-factor/confirm", {"code": old})
    assert log_in(served.client(None), browser.person.name).headers["location"] == "/console/"
    new = TOTP(fresh.replace(" ", "")).at(clock())
    assert len(secrets_of(browser.post("/console/me/second-factor/confirm", {"code": new}).text)) == RECOVERY_CODES


def test_setting_it_up_needs_the_password_and_ends_the_other_sessions(served, clock):
    person = served.person("operator")
    browser, other = served.client(person=person), served.client(person=person)
    refused = begin(browser, "not the password at all")
    assert "the current password is wrong" in browser.follow(refused).text

    key, _ = secrets_of(begin(browser).text)
    browser.post("/console/me/second-factor/confirm", {"code": TOTP(key.replace(" ", "")).at(clock())})

    assert browser.get("/console/").status_code == 200
    assert other.get("/console/").headers["location"] == "/console/login"
    assert "There is a second factor already" in browser.follow(begin(browser)).text


def test_it_is_removed_and_its_recovery_codes_renewed_by_a_code_alone(served, clock):
    browser, totp, codes = enrolled(served, clock)
    for form in ("recovery", "remove"):
        refused = browser.post(f"/console/me/second-factor/{form}", {"code": "000000"})
        assert "The code is wrong" in browser.follow(refused).text

    renewed = secrets_of(browser.post("/console/me/second-factor/recovery", {"code": totp.at(clock())}).text)
    assert len(renewed) == RECOVERY_CODES
    assert not set(renewed) & set(codes)
    assert type_code(password_typed(served, browser.person), codes[0]).status_code == 401

    browser.post("/console/me/second-factor/remove", {"code": renewed[0]})
    assert log_in(served.client(None), browser.person.name).headers["location"] == "/console/"
    assert {"add second factor", "renew recovery codes", "remove second factor"} <= actions_of(served, browser.person)


def test_neither_key_nor_code_is_kept_in_the_clear(served, clock):
    browser, totp, codes = enrolled(served, clock)
    with served.service.database.read() as unit:
        kept = str(values(console_factors.of_person(unit, browser.person.id)))
    assert totp.secret not in kept
    assert not [code for code in codes if code in kept or code.replace("-", "") in kept]
    page = browser.get("/console/me").text
    assert totp.secret not in page.replace(" ", "")


def test_a_sealed_key_of_somebody_else_opens_nothing(served, clock):
    mine, totp, _ = enrolled(served, clock)
    theirs, _, _ = enrolled(served, clock, "admin")
    with served.service.database.write() as unit:
        sealed = console_factors.of_person(unit, mine.person.id).sealed_key
        console_factors.use_step(unit, theirs.person.id, 0, sealed)

    refused = type_code(password_typed(served, theirs.person), totp.at(clock()))

    assert refused.status_code == 409
    assert "cannot be opened" in refused.text


def test_one_that_is_required_comes_before_anything_else(tmp_path, template, clock):
    with on_sqlite(
        tmp_path, template, clock=clock, environ={"RECEIPTED_CONSOLE__REQUIRE_SECOND_FACTOR": "true"}
    ) as served:
        browser = served.client("admin")
        assert browser.get("/console/").headers["location"] == "/console/me"
        assert "demands a second factor" in browser.get("/console/me").text
        refused = browser.post("/console/people", {"name": "eve", "role": "admin"})
        assert refused.status_code == 403
        assert "demands a second factor" in refused.text

        key, _ = secrets_of(begin(browser).text)
        totp = TOTP(key.replace(" ", ""))
        browser.post("/console/me/second-factor/confirm", {"code": totp.at(clock())})
        assert browser.get("/console/").status_code == 200
        assert "second factor" in browser.get("/console/people").text

        clock.advance(STEP_S)
        browser.post("/console/me/second-factor/remove", {"code": totp.at(clock())})
        assert browser.get("/console/").headers["location"] == "/console/me"


def test_the_cookie_between_is_out_of_reach_and_short(served, clock):
    browser, _, _ = enrolled(served, clock)
    kept = cookie(log_in(served.client(None), browser.person.name), "receipted-code")
    assert (kept["httponly"], kept["samesite"], kept["max-age"]) == (True, "strict", "300")


def test_no_other_session_begins_before_the_code(served, clock):
    browser, _, _ = enrolled(served, clock)
    password_typed(served, browser.person)
    with served.service.database.read() as unit:
        found = console_sessions.of_person(unit, browser.person.id)
    assert len(found) == 1


def test_a_code_counts_once_for_all_processes_on_postgresql(tmp_path, clock, postgresql: PostgreSQL):
    database = postgresql.cleaned()
    found = load.load(write_settings(tmp_path), {"RECEIPTED_SERVICE__DATABASE": database.url})
    try:
        with serving(found, clock=clock) as one, serving(found, clock=clock) as other:
            browser, totp, codes = enrolled(one, clock)
            code = totp.at(clock())
            assert type_code(password_typed(one, browser.person), code).status_code == 303
            assert type_code(password_typed(other, browser.person), code).status_code == 401
            assert type_code(password_typed(other, browser.person), codes[0]).status_code == 303
            assert type_code(password_typed(one, browser.person), codes[0]).status_code == 401
    finally:
        database.close()
