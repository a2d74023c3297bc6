"""Log-in by OpenID Connect at a made-up provider: who gets in as what, and which answers open nothing."""

from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc.jwk import OctKey, RSAKey

from service.permissions import Role
from storage import console_users, operator_actions
from tests.integration.console.test_login import cookie, log_in
from tests.support.answering import Reply, answering
from tests.support.clock import FakeClock
from tests.support.console import on_sqlite
from tests.support.oidc_provider import CLIENT, CLIENT_SECRET, Provider

OTHER_KEY = RSAKey.generate_key(2048, {"kid": "k1"})


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def provider(clock):
    with answering() as server:
        made = Provider(server, clock)
        server.answers = made.answer
        yield made


@pytest.fixture
def served(tmp_path, template, clock, provider):
    environ = {
        "RECEIPTED_OIDC__ISSUER": provider.server.url,
        "RECEIPTED_OIDC__CLIENT_ID": CLIENT,
        "RECEIPTED_OIDC__CLIENT_SECRET": "env:OIDC_SECRET",
        "OIDC_SECRET": CLIENT_SECRET,
        "RECEIPTED_OIDC__VIEWERS": '["staff"]',
        "RECEIPTED_OIDC__OPERATORS": '["payments-operators"]',
        "RECEIPTED_OIDC__ADMINS": '["payments-admins"]',
    }
    with on_sqlite(tmp_path, template, clock=clock, environ=environ) as made:
        yield made


def leave(browser, provider, wanted=""):
    answer = browser.get("/console/login/oidc" + (f"?next={wanted}" if wanted else ""))
    assert answer.status_code == 303, answer.text
    provider.asked = {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}
    return answer


def come_back(browser, provider, **changes):
    given = {"code": "a-code", "state": provider.asked["state"], **changes}
    cross = {"sec-fetch-site": "cross-site"}
    return browser.get("/console/login/oidc/callback", params=given, headers=cross)


def enter(served, provider, wanted=""):
    browser = served.client(None)
    leave(browser, provider, wanted)
    return browser, come_back(browser, provider)


def person(served, name="ada"):
    with served.service.database.read() as unit:
        found = console_users.by_name(unit, name)
        return found, operator_actions.of_subjects(unit, [found.id]) if found else []


def test_who_the_provider_names_is_led_on_with_a_role_of_their_own(served, provider):
    assert "/console/login/oidc" in served.client(None).get("/console/login").text
    browser, answer = enter(served, provider, "/console/me")

    assert answer.status_code == 200
    assert 'url=/console/me"' in answer.text  # by a page of ours: a redirect from elsewhere would carry no cookie
    assert "ada" in browser.get("/console/me").text
    found, actions = person(served)
    assert found.role == Role.OPERATOR.value
    assert [(done.actor, done.action) for done in actions] == [("openid connect", "add person")]


def test_the_browser_is_sent_with_state_nonce_and_challenge(served, provider):
    browser = served.client(None)
    answer = leave(browser, provider)
    asked = provider.asked

    assert answer.headers["location"].startswith(f"{provider.server.url}/authorize?")
    assert (asked["response_type"], asked["client_id"], asked["code_challenge_method"]) == ("code", CLIENT, "S256")
    assert asked["redirect_uri"].endswith("/console/login/oidc/callback")
    assert "openid" in asked["scope"].split()
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) >= 43
    kept = cookie(answer, "receipted-oidc")
    assert (kept["httponly"], kept["samesite"], kept["max-age"]) == (True, "lax", "600")
    assert come_back(browser, provider).status_code == 200
    assert provider.redeemed[0]["client_secret"] == CLIENT_SECRET
    other = served.client(None)
    before = provider.asked
    leave(other, provider)
    assert not set(before.values()) & {provider.asked[name] for name in ("state", "nonce", "code_challenge")}


@pytest.mark.parametrize(
    ("groups", "role"),
    [(["staff"], "viewer"), ("payments-operators", "operator"), (["staff", "payments-admins"], "admin")],
)
def test_the_highest_role_that_the_claim_gives_counts(served, provider, groups, role):
    provider.claims = {"groups": groups}
    enter(served, provider)
    assert person(served)[0].role == role


def test_a_role_follows_the_claim_at_each_log_in(served, provider):
    enter(served, provider)
    provider.claims = {"groups": ["staff"], "preferred_username": "renamed"}
    browser, _ = enter(served, provider)

    found, actions = person(served)
    assert found.role == "viewer"
    assert [done.action for done in actions if done.action == "change role"]
    assert "ada" in browser.get("/console/me").text  # found by the subject, whatever the name is now


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "another-client"},
        {"aud": [CLIENT, "another-client"]},
        {"aud": None},
        {"azp": "another-client"},
        {"exp": 1},
        {"exp": None},
        {"iat": None},
        {"nonce": "another"},
        {"nonce": None},
        {"sub": None},
        {"sub": ""},
        {"preferred_username": None},
        {"preferred_username": "../evil"},
        {"groups": None},
        {"groups": ["strangers"]},
        {"groups": {"payments-admins": True}},
        {"groups": 7},
        {"exp": "soon"},
        {"sub": 7},
    ],
    ids=str,
)
def test_a_token_that_says_the_wrong_thing_opens_nothing(served, provider, claims):
    provider.claims = claims
    browser, answer = enter(served, provider)

    assert answer.status_code in (400, 403)
    assert browser.get("/console/").headers["location"] == "/console/login"
    with served.service.database.read() as unit:
        assert console_users.find(unit) == []


@pytest.mark.parametrize("how", ["another key", "no signature", "the client's secret"])
def test_a_token_that_another_signed_opens_nothing(served, provider, how, monkeypatch):
    if how == "another key":
        provider.key = OTHER_KEY
    elif how == "no signature":
        body = provider.token
        monkeypatch.setattr(provider, "token", lambda: "eyJhbGciOiJub25lIn0." + body().split(".")[1] + ".")
    else:
        provider.key, provider.header = OctKey.import_key(CLIENT_SECRET), {"alg": "HS256", "kid": "k1"}
    browser, answer = enter(served, provider)

    assert answer.status_code == 403
    assert browser.get("/console/").headers["location"] == "/console/login"


@pytest.mark.parametrize(
    "changes",
    [{"state": "another"}, {"state": ""}, {"code": ""}, {"error": "access_denied"}, {"iss": "https://evil.example"}],
)
def test_an_answer_to_something_else_opens_nothing(served, provider, changes):
    browser = served.client(None)
    leave(browser, provider)

    assert come_back(browser, provider, **changes).status_code == 403
    assert provider.redeemed == []


def test_an_answer_in_another_browser_or_too_late_opens_nothing(served, provider, clock):
    leave(served.client(None), provider)
    assert come_back(served.client(None), provider).status_code == 403

    late = served.client(None)
    leave(late, provider)
    clock.advance(601)
    assert come_back(late, provider).status_code == 403
    assert provider.redeemed == []


def test_a_name_with_a_password_is_never_taken_over(served, provider):
    served.person("admin", "ada")
    browser, answer = enter(served, provider)

    assert answer.status_code == 403
    assert "another person ada" in answer.text
    assert browser.get("/console/").headers["location"] == "/console/login"


def test_somebody_who_is_disabled_stays_out(served, provider, clock):
    enter(served, provider)
    with served.service.database.write() as unit:
        console_users.disable(unit, person(served)[0].id, clock())

    assert enter(served, provider)[1].status_code == 403


@pytest.mark.parametrize("password", ["", "a password that nobody has"])
def test_who_logs_in_there_has_no_password_here(served, provider, password):
    enter(served, provider)
    assert log_in(served.client(None), "ada", password).status_code == 401


@pytest.mark.parametrize(
    "metadata",
    [{"issuer": "https://evil.example"}, {"token_endpoint": "http://evil.example/redeem"}, {"jwks_uri": None}],
    ids=str,
)
def test_metadata_that_cannot_be_trusted_leads_nowhere(served, provider, metadata):
    provider.metadata = metadata
    answer = served.client(None).get("/console/login/oidc")

    assert answer.status_code == 502
    assert "location" not in answer.headers


def test_a_provider_that_fails_is_told_without_its_words(served, provider):
    browser = served.client(None)
    leave(browser, provider)
    provider.server.answers = lambda _call: Reply(500, b"a secret of the provider")
    answer = come_back(browser, provider)

    assert answer.status_code == 502
    assert "a secret of the provider" not in answer.text
    assert CLIENT_SECRET not in answer.text


def test_one_network_is_counted(served, provider):
    browser = served.client(None)
    answers = [browser.get("/console/login/oidc").status_code for _ in range(served.limits.attempts_per_network + 1)]
    assert answers[-2:] == [303, 429]


def test_without_a_provider_there_is_nothing_there(console):
    for path in ("/console/login/oidc", "/console/login/oidc/callback"):
        assert console.client(None).get(path).status_code == 404
    assert "single sign-on" not in console.client(None).get("/console/login").text


def test_a_required_second_factor_is_the_providers_matter(tmp_path, template, clock, provider):
    environ = {
        "RECEIPTED_CONSOLE__REQUIRE_SECOND_FACTOR": "true",
        "RECEIPTED_OIDC__ISSUER": provider.server.url,
        "RECEIPTED_OIDC__CLIENT_ID": CLIENT,
        "RECEIPTED_OIDC__CLIENT_SECRET": "env:OIDC_SECRET",
        "OIDC_SECRET": CLIENT_SECRET,
        "RECEIPTED_OIDC__OPERATORS": '["payments-operators"]',
    }
    with on_sqlite(tmp_path, template, clock=clock, environ=environ) as served:
        browser, _ = enter(served, provider)
        assert browser.get("/console/").status_code == 200
