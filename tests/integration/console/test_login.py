"""The log-in: who gets a session, what ends it, how often it may be tried, and what it never tells."""

import re
from http.cookies import SimpleCookie

import pytest

from console import login
from service.passwords import UNMATCHABLE_HASH, needs_rehash
from service.permissions import Role
from storage import console_sessions, console_users
from tests.support.clock import FakeClock
from tests.support.console import PASSWORD, on_sqlite, serving
from tests.support.databases import PostgreSQL
from tests.support.settings_file import write_settings
from tests.support.waiting import DEADLINE_S


def fields(page):
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page))


def log_in(browser, name, password=PASSWORD, path="/console/login"):
    return browser.post("/console/login", {**fields(browser.get(path).text), "name": name, "password": password})


def cookie(answer, name):
    given = [SimpleCookie(line) for line in answer.headers.get_list("set-cookie")]
    return next(morsels[name] for morsels in given if name in morsels)


def test_a_page_needs_a_person_and_the_log_in_leads_back_to_it(console):
    browser, person = console.client(None), console.person("viewer")

    sent_away = browser.get("/console/me")
    assert sent_away.headers["location"] == "/console/login?next=%2Fconsole%2Fme"
    answer = log_in(browser, person.name, path=sent_away.headers["location"])

    assert answer.headers["location"] == "/console/me"
    assert person.name in browser.follow(answer).text


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "/console/\\..", "/webhooks/x", "/console/\n", ""],
)
def test_nobody_is_led_elsewhere(console, elsewhere):
    browser, person = console.client(None), console.person("viewer")
    given = fields(browser.get("/console/login").text)

    answer = browser.post("/console/login", {**given, "next": elsewhere, "name": person.name, "password": PASSWORD})

    assert answer.headers["location"] == "/console/"


def test_a_name_may_be_typed_in_any_case(console):
    console.person("viewer", "ada")

    assert log_in(console.client(None), " Ada ").status_code == 303


def test_the_cookie_is_out_of_reach_and_holds_nothing_but_the_session(console):
    answer = log_in(console.client(None), console.person("viewer").name)
    kept = cookie(answer, "receipted")

    assert (kept["httponly"], kept["samesite"], kept["path"], kept["domain"]) == (True, "strict", "/", "")
    assert kept["max-age"] == kept["expires"] == ""  # it ends with the browser


def test_over_https_the_cookie_is_of_this_host_alone(tmp_path, template):
    with secure(tmp_path, template) as served:
        browser = served.client(None)
        browser.http.headers["x-forwarded-proto"] = "https"
        person = served.person("viewer")
        form = browser.get("/console/login")
        before = cookie(form, "__Host-receipted-login")
        answer = browser.post(
            "/console/login",
            {**fields(form.text), "name": person.name, "password": PASSWORD},
            headers={"origin": "https://pay.shop.example", "cookie": f"__Host-receipted-login={before.value}"},
        )
        kept = cookie(answer, "__Host-receipted")

        assert (kept["secure"], kept["httponly"], kept["samesite"], kept["path"]) == (True, True, "strict", "/")
        assert answer.headers["strict-transport-security"].startswith("max-age=")


def test_over_plain_http_nothing_is_served(tmp_path, template):
    with secure(tmp_path, template) as served:
        for path in ("/console/", "/console/login", "/console/static/console.css"):
            answer = served.client(None).get(path)
            assert answer.status_code == 403
            assert "HTTPS" in answer.text
            assert "location" not in answer.headers


def secure(folder, template):
    environ = {
        "RECEIPTED_SERVICE__PUBLIC_URL": "https://pay.shop.example",
        "RECEIPTED_SERVICE__TRUSTED_PROXIES": '["127.0.0.0/8"]',
    }
    return on_sqlite(folder, template, environ=environ, is_development=False)


@pytest.mark.parametrize("password", ["wrong password here", "", PASSWORD + " ", PASSWORD.upper(), "x" * 5000])
def test_a_wrong_password_opens_nothing(console, password):
    person = console.person("admin")
    answer = log_in(console.client(None), person.name, password)

    assert answer.status_code == 401
    assert "receipted=" not in " ".join(answer.headers.get_list("set-cookie"))
    with console.service.database.read() as unit:
        assert console_sessions.of_person(unit, person.id) == []


def test_an_unknown_name_a_wrong_password_and_a_disabled_person_cannot_be_told_apart(console, monkeypatch):
    known, disabled = console.person("viewer", "known"), console.person("viewer", "gone")
    with console.service.database.write() as unit:
        console_users.disable(unit, disabled.id, console.service.clock())
    checked = []
    real = login.matches_hash
    monkeypatch.setattr(login, "matches_hash", lambda password, kept: checked.append(kept) or real(password, kept))

    answers = [
        log_in(console.client(None), "nobody"),
        log_in(console.client(None), known.name, "a wrong password"),
        log_in(console.client(None), disabled.name),
    ]

    told = {re.sub(r'value="[^"]*"|Request [0-9a-f-]+', "", answer.text) for answer in answers}
    assert [answer.status_code for answer in answers] == [401, 401, 401]
    assert len(told) == 1
    # whoever it is, one password is looked at, at the usual cost where nobody has the name
    assert checked == [UNMATCHABLE_HASH, known.password_hash, disabled.password_hash]
    assert not needs_rehash(UNMATCHABLE_HASH)


def test_a_session_is_a_new_one_and_the_one_before_is_over(console):
    browser, person = console.client(None), console.person("viewer")
    log_in(browser, person.name)
    first = browser.http.cookies["receipted"]
    log_in(browser, person.name)

    assert browser.http.cookies["receipted"] != first
    with console.service.database.read() as unit:
        kept = console_sessions.of_person(unit, person.id)
    assert [session.revoked_at is None for session in kept] == [True, False]


def test_a_weaker_hash_is_made_anew_at_the_log_in(console):
    person = console.person("viewer")
    assert needs_rehash(person.password_hash)
    assert log_in(console.client(None), person.name).status_code == 303

    with console.service.database.read() as unit:
        kept = console_users.get(unit, person.id)
    assert not needs_rehash(kept.password_hash)
    assert log_in(console.client(None), person.name).status_code == 303


def test_logging_out_ends_the_session_for_whoever_has_its_cookie(console):
    browser = console.client("viewer")
    stolen = browser.http.cookies["receipted"]

    answer = browser.post("/console/logout")
    assert answer.headers["location"] == "/console/login"
    assert "You are logged out" in browser.follow(answer).text
    thief = console.client(None)
    thief.http.cookies.set("receipted", stolen, domain="127.0.0.1", path="/")
    assert thief.get("/console/me").status_code == 303


@pytest.mark.parametrize("cookie_value", ["", "x", "WzEsIngiXQ.c2lnbmF0dXJl", "é", "a.b.c.d", "." * 4000], ids=range(6))
def test_a_cookie_that_was_not_signed_here_is_no_session(console, cookie_value):
    answer = console.client(None).get(
        "/console/me", headers={b"cookie": b"receipted=" + cookie_value.encode("latin-1")}
    )

    assert (answer.status_code, answer.headers["location"]) == (303, "/console/login?next=%2Fconsole%2Fme")


# -- time -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def timed(tmp_path, template):
    clock = FakeClock()
    with on_sqlite(tmp_path, template, clock=clock) as served:
        yield served, clock


def test_a_session_ends_without_use(timed):
    served, clock = timed
    browser = served.client("viewer")
    clock.advance(8 * 3600 - 1)
    assert browser.get("/console/me").status_code == 200
    clock.advance(8 * 3600 - 1)  # counted from the last use
    assert browser.get("/console/me").status_code == 200
    clock.advance(8 * 3600)
    assert browser.get("/console/me").status_code == 303


def test_a_page_that_brings_itself_up_to_date_keeps_no_session_open(timed):
    """What a page fetches by itself is no use; nobody may be there any more."""
    served, clock = timed
    browser = served.client("viewer")
    clock.advance(8 * 3600 - 1)

    assert browser.get("/console/", headers={"sec-fetch-mode": "cors"}).status_code == 200
    clock.advance(1)

    assert browser.get("/console/", headers={"sec-fetch-mode": "cors"}).status_code == 401


def test_a_session_ends_however_much_it_is_used(timed):
    served, clock = timed
    browser = served.client("viewer")
    for _ in range(23):
        clock.advance(3600)
        assert browser.get("/console/me").status_code == 200
    clock.advance(3599)
    assert browser.get("/console/me").status_code == 200
    clock.advance(1)
    assert browser.get("/console/me").status_code == 303


def test_a_log_in_page_does_not_stand_open_for_ever(timed):
    served, clock = timed
    browser, person = served.client(None), served.person("viewer")
    given = {**fields(browser.get("/console/login").text), "name": person.name, "password": PASSWORD}
    clock.advance(3600)
    late = browser.post("/console/login", given)

    assert (late.status_code, "stood open" in late.text) == (401, True)
    again = {**given, **fields(late.text)}
    assert browser.post("/console/login", again).status_code == 303


# -- how often ------------------------------------------------------------------------------------------------------


def test_a_name_is_tried_so_often_and_then_even_the_right_password_waits(timed):
    served, clock = timed
    person = served.person("viewer")
    for _ in range(10):
        assert log_in(served.client(None), person.name, "a wrong password").status_code == 401
    refused = log_in(served.client(None), person.name)

    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) == 900
    assert "15 minutes" in refused.text
    clock.advance(899)
    assert log_in(served.client(None), person.name).status_code == 429
    clock.advance(1)
    assert log_in(served.client(None), person.name).status_code == 303


def test_a_name_that_nobody_has_is_limited_like_any_other(timed):
    served, _ = timed
    answers = [log_in(served.client(None), "nobody", "a wrong password").status_code for _ in range(11)]

    assert answers == [401] * 10 + [429]


def test_the_right_password_forgets_the_wrong_ones(timed):
    served, _ = timed
    person = served.person("viewer")
    for _ in range(3):
        for _ in range(9):
            assert log_in(served.client(None), person.name, "a wrong password").status_code == 401
        assert log_in(served.client(None), person.name).status_code == 303


def test_a_network_is_limited_whichever_names_it_tries(tmp_path, template):
    with on_sqlite(tmp_path, template, more="\n[console]\nattempts_per_network = 4\n", clock=FakeClock()) as served:
        answers = [log_in(served.client(None), f"name-{at}", "a wrong password").status_code for at in range(6)]

    assert answers == [401] * 4 + [429] * 2


@pytest.fixture
def far_off(tmp_path, template):
    """A console of which strangers come from networks of their own: what fails from one of them, and its clock."""
    clock = FakeClock()
    environ = {"RECEIPTED_SERVICE__TRUSTED_PROXIES": '["127.0.0.0/8"]'}
    more = "\n[console]\nattempts_everywhere = 25\n"
    with on_sqlite(tmp_path, template, more=more, clock=clock, environ=environ) as served:

        def fail(name, network, times):
            stranger = served.client(None)
            stranger.http.headers.update({"x-forwarded-for": f"198.51.{network}.7", "x-forwarded-proto": "https"})
            return [log_in(stranger, name, "a wrong password").status_code for _ in range(times)]

        yield served, fail, clock


def test_a_stranger_elsewhere_keeps_nobody_out(far_off):
    served, fail, _ = far_off
    person = served.person("operator")

    assert fail(person.name, 1, 12) == [401] * 10 + [429] * 2
    assert log_in(served.client(None), person.name).status_code == 303
    assert fail(person.name, 1, 1) == [429]  # who succeeds elsewhere gives them no more


def test_strangers_from_many_networks_keep_out_browsers_that_nobody_knows_and_no_other(far_off):
    served, fail, clock = far_off
    person, browser = served.person("operator"), served.client(None)
    assert log_in(browser, person.name).status_code == 303
    browser.post("/console/logout", fields(browser.get("/console/").text))
    failed = [status for network in range(3) for status in fail(person.name, network, 10)]

    assert failed == [401] * 25 + [429] * 5
    assert log_in(served.client(None), person.name).status_code == 429
    assert log_in(browser, person.name).status_code == 303
    clock.advance(900)
    assert log_in(served.client(None), person.name).status_code == 303


def test_a_known_browser_is_counted_by_itself_and_for_one_name(far_off):
    served, _, _ = far_off
    person, other, browser = served.person("operator"), served.person("operator"), served.client(None)
    log_in(browser, person.name)
    browser.http.cookies.delete("receipted")

    assert [log_in(browser, person.name, "a wrong password").status_code for _ in range(10)] == [401] * 10
    assert log_in(browser, person.name).status_code == 429
    assert log_in(served.client(None), person.name).status_code == 303  # it used up nothing of anybody's
    tries = [log_in(browser, other.name, "a wrong password").status_code for _ in range(11)]
    assert tries == [401] * 10 + [429]
    assert log_in(served.client(None), other.name).status_code == 429  # there it is a stranger like any other


def test_what_makes_a_browser_known_opens_nothing_and_is_kept_for_long(console):
    person, browser = console.person("viewer"), console.client(None)
    answer = log_in(browser, person.name)
    kept = cookie(answer, "receipted-known")

    assert (kept["httponly"], kept["samesite"], kept["path"], kept["max-age"]) == (True, "strict", "/", "15552000")
    assert person.name not in kept.value
    browser.http.cookies.delete("receipted")
    assert browser.get("/console/me").status_code == 303


def test_whoever_is_logged_in_can_change_the_password_while_strangers_try_it(far_off):
    served, fail, _ = far_off
    browser = served.client("operator")
    assert browser.person is not None
    for network in range(3):
        fail(browser.person.name, network, 10)
    new = {"new": "another horse battery", "again": "another horse battery"}

    wrong = [browser.post("/console/me/password", {**new, "current": "wrong"}).status_code for _ in range(2)]
    right = browser.post("/console/me/password", {**new, "current": PASSWORD})

    assert (wrong, right.status_code) == ([401, 401], 303)


def test_the_limit_holds_over_processes_on_postgresql(tmp_path, postgresql: PostgreSQL):
    from receipted.settings import load

    database, clock = postgresql.cleaned(), FakeClock()
    found = load.load(write_settings(tmp_path), {"RECEIPTED_SERVICE__DATABASE": database.url})
    try:
        with serving(found, clock=clock) as one, serving(found, clock=clock) as other:
            person = one.person(Role.VIEWER)
            answers = [
                log_in((one, other)[at % 2].client(None), person.name, "a wrong password").status_code
                for at in range(12)
            ]
            assert answers == [401] * 10 + [429] * 2
            with one.service.database.read() as unit:
                assert console_users.by_name(unit, person.name) is not None
            clock.advance(900)
            browser = other.client(None)
            log_in(browser, person.name)
            assert browser.get("/console/me").status_code == 200
    finally:
        database.close()


def test_of_many_who_come_at_once_no_more_than_the_limit_are_counted(database):
    import threading
    from datetime import timedelta

    clock, start, granted = FakeClock(), threading.Barrier(8), []

    def take():
        start.wait(DEADLINE_S)
        for _ in range(5):
            with database.write() as unit:
                wait = console_sessions.take(unit, "x", clock(), at_most=10, window=timedelta(minutes=15))
            granted.append(wait is None)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert (granted.count(True), granted.count(False)) == (10, 30)
