"""What no request gets past: every page needs a person, every form is ours, every answer is guarded."""

import pytest

from console.browser_security import CONTENT_SECURITY_POLICY, local_path
from service.permissions import Role
from storage import console_users
from storage.ids import new_id
from tests.support.console import PASSWORD

GUARDS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


def filled(path):
    """A path with an id of nothing wherever it wants one."""
    return path.replace("{name}", "x").replace("{id}", new_id()).replace("{path:path}", "x")


def paths(console, method):
    return [filled(route.path) for route in console.routes if method in (route.methods or ())]


def test_every_answer_is_guarded(console):
    someone, nobody = console.client("admin"), console.client(None)
    looked_at = 0
    for path in [*paths(console, "GET"), "/console/nothing", "/console", "/console/static/console.css"]:
        for browser in (someone, nobody):
            with browser.http.stream("GET", path) as answer:  # some never end
                pass
            assert {name: answer.headers.get(name) for name in GUARDS} == GUARDS, path
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], path
            assert answer.headers["x-request-id"], path
            if not path.startswith("/console/static/console.css"):
                assert "no-store" in answer.headers["cache-control"] or "no-cache" in answer.headers["cache-control"]
            looked_at += 1
    assert looked_at >= 12


def test_the_policy_allows_nothing_that_is_in_a_page_itself_or_from_elsewhere(console):
    assert console.client("viewer").get("/console/me").headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'")


@pytest.mark.parametrize("path", ["/console/login", "/console/me", "/console/people", "/console/nothing"])
def test_no_page_has_a_style_or_a_script_in_itself(console, path):
    text = console.client("admin").get(path).text

    assert " style=" not in text
    assert "<style" not in text
    assert "<script>" not in text
    assert " on" not in "".join(part.partition(">")[0] for part in text.split("<")).replace(" one", "")


def test_without_a_person_every_page_leads_to_the_log_in_and_every_form_is_refused(console):
    nobody = console.client(None)
    for path in paths(console, "GET"):
        if path.startswith(("/console/login", "/console/static")):
            continue
        answer = nobody.get(path)
        assert answer.status_code == 303, path
        assert answer.headers["location"].startswith("/console/login"), path
        as_script = nobody.get(path, headers={"sec-fetch-mode": "cors"})
        assert as_script.status_code == 401, path
    for path in paths(console, "POST"):
        if not path.startswith("/console/login"):
            assert nobody.post(path, {"csrf": "x"}).status_code == 401, path


FORGED = {
    "no token": ({"csrf": ""}, {}),
    "another token": ({"csrf": "x" * 43}, {}),
    "a token with other letters": ({"csrf": "é" * 43}, {}),
    "another site": ({}, {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}),
    "another host of the site": ({}, {"sec-fetch-site": "same-site"}),
    "another origin, of an old browser": ({}, {"sec-fetch-site": "", "origin": "https://evil.example"}),
    "an origin that is hidden": ({}, {"origin": "null"}),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_form_that_is_not_ours_does_nothing(console, kind):
    admin = console.client("admin")
    other = console.person("viewer", "other")
    for path in paths(console, "POST"):
        if path == "/console/login":
            continue
        data, headers = FORGED[kind]
        answer = admin.post(path.replace("{id}", other.id), {"role": "admin", "reason": "x", **data}, headers=headers)
        assert answer.status_code == 403, path
    role = admin.post(f"/console/people/{other.id}/role", {"role": "admin", **FORGED[kind][0]}, headers=FORGED[kind][1])
    assert role.status_code == 403
    with console.service.database.read() as unit:
        assert console_users.get(unit, other.id).role == "viewer"
    assert admin.get("/console/me").status_code == 200


def test_a_request_that_does_not_say_where_it_came_from_is_not_ours(console):
    admin = console.client("admin")

    answer = admin.http.post("/console/me/sessions/revoke", data={"csrf": admin.csrf})

    assert answer.status_code == 403


def test_the_token_of_one_session_is_none_of_another(console):
    one, other = console.client("viewer"), console.client("viewer")

    assert one.post("/console/me/sessions/revoke", {"csrf": other.csrf}).status_code == 403
    assert one.post("/console/me/sessions/revoke").status_code == 303


def test_the_log_in_has_a_token_of_its_own(console):
    browser, person = console.client(None), console.person("viewer")
    given = {"name": person.name, "password": PASSWORD}

    assert browser.post("/console/login", given).status_code == 403  # no page was opened before
    browser.get("/console/login")
    assert browser.post("/console/login", {**given, "csrf": "x" * 43}).status_code == 403


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR], ids=str)
def test_who_may_not_sees_no_people_and_changes_none(console, role):
    browser, other = console.client(role), console.person("admin", "other")

    assert browser.get("/console/people").status_code == 403
    for path in ("role", "disable", "enable", "logout", "password"):
        answer = browser.post(f"/console/people/{other.id}/{path}", {"role": "viewer", "reason": "x"})
        assert answer.status_code == 403, path
    assert browser.post("/console/people", {"name": "new", "role": "admin"}).status_code == 403
    with console.service.database.read() as unit:
        kept = console_users.get(unit, other.id)
        assert (kept.role, kept.disabled_at, console_users.by_name(unit, "new")) == ("admin", None, None)
        assert kept.password_hash == other.password_hash


def test_a_fault_is_told_without_a_word_of_what_it_was(console, monkeypatch):
    def broken(*_args, **_more):
        raise RuntimeError("a secret of the program")

    monkeypatch.setattr("console.profile.console_sessions.of_person", broken)
    answer = console.client("viewer").get("/console/me")

    assert answer.status_code == 500
    assert "a secret" not in answer.text
    assert answer.headers["x-request-id"] in answer.text


def test_what_is_not_there_is_told_in_a_page(console):
    browser = console.client("viewer")

    missing, wrong = browser.get("/console/nothing"), browser.post("/console/me")
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert "There is nothing here" in missing.text
    assert missing.headers["content-type"].startswith("text/html")


def test_what_people_typed_is_text_and_never_markup(console):
    admin = console.client("admin")
    answer = admin.post("/console/people", {"name": "<script>alert(1)</script>", "role": "viewer"})

    assert answer.status_code == 400
    assert "<script" not in answer.text


def test_a_style_is_kept_for_ever_where_its_url_names_its_content(console):
    nobody = console.client(None)
    page = nobody.get("/console/login").text
    url = page.split('rel="stylesheet" href="')[1].split('"')[0]
    exact, plain = nobody.get(url), nobody.get("/console/static/console.css")

    assert "immutable" in exact.headers["cache-control"]
    assert plain.headers["cache-control"] == "no-cache"
    again = nobody.get("/console/static/console.css", headers={"if-none-match": plain.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    for path in ("../page.py", "%2e%2e%2fpage.py", "nothing.css", ".."):
        assert nobody.get(f"/console/static/{path}").status_code in (303, 404), path


@pytest.mark.parametrize(
    ("path", "is_here"),
    [
        ("/console", True),
        ("/console/payments/x?y=1", True),
        ("/consoles", False),
        ("//evil.example/console/", False),
        ("https://evil.example/console/", False),
        ("/console/\\evil", False),
        ("/console/\nx", False),
        ("", False),
    ],
)
def test_where_a_page_may_lead(path, is_here):
    assert local_path(path, "elsewhere") == (path if is_here else "elsewhere")


def test_a_link_from_another_site_is_followed_by_a_page_of_ours(console):
    """A browser sends a strict cookie only with what a page of this site asks for."""
    answer = console.client(None).get("/console/login?next=%2Fconsole%2Fme", headers={"sec-fetch-site": "cross-site"})

    assert '<meta http-equiv="refresh" content="0;url=/console/me">' in answer.text
    assert "password" not in answer.text
    nowhere = console.client(None).get("/console/login?next=//evil.example", headers={"sec-fetch-site": "cross-site"})
    assert "evil" not in nowhere.text


def test_an_origin_is_ours_by_its_whole_name():
    from types import SimpleNamespace

    from console.browser_security import _is_ours

    def of(origin, *, host="pay.shop.example", is_development=False):
        parts = SimpleNamespace(origin="https://pay.shop.example", is_development=is_development)
        return _is_ours(parts, origin, host)

    assert of("https://pay.shop.example")
    assert of("https://pay.shop.example", host="10.0.0.7:8000")  # a proxy that names itself
    assert of("https://inside.example:8443", host="inside.example:8443")
    assert not of("http://pay.shop.example")
    assert not of("https://pay.shop.example.evil.example")
    assert not of("https://pay.shop.example:444")
    assert not of("null")
    assert not of("")
    assert of("http://127.0.0.1:8000", host="127.0.0.1:8000", is_development=True)
