"""One permission, every door: each route and operation with each role and scope, and what each lets be seen."""

import itertools
import shutil
from contextlib import ExitStack

import pytest

from api.application import operations
from console.access import ROUTE_PERMISSIONS, RoutePermissions, named_routes
from console.application import ConsoleRoute
from receipted.settings import load
from service.permissions import ROLES, SCOPES, KeyScope, Permission, Role, granted, role_for
from storage.ids import new_id
from tests.integration.console.stories import Teller
from tests.integration.console.table_rows import rejecting
from tests.support.api import error, serving
from tests.support.console import on_sqlite
from tests.support.settings_file import LIVE_ACCOUNT, NOWHERE, write_settings

#: The least role of each route of the console; "" for what needs no person.
CONSOLE = {
    "": [
        "GET /console/static/{name}",
        "GET /console/login",
        "POST /console/login",
        "GET /console/login/code",
        "POST /console/login/code",
        "GET /console/login/oidc",
        "GET /console/login/oidc/callback",
    ],
    "viewer": [
        "POST /console/logout",
        "GET /console/me",
        "POST /console/me/password",
        "POST /console/me/second-factor",
        "POST /console/me/second-factor/confirm",
        "POST /console/me/second-factor/recovery",
        "POST /console/me/second-factor/remove",
        "POST /console/me/sessions/revoke",
        "POST /console/me/sessions/{id}/revoke",
        "GET /console/",
        "GET /console/live",
        "GET /console/accounts",
        "GET /console/accounts/{name}",
        "GET /console/money",
        "GET /console/payments/{id}",
        "GET /console/payments/{id}/live",
        "GET /console/payments/{id}/proof",
        "GET /console/find",
        "GET /console/tables/",
        "GET /console/tables/{key}/list",
        "GET /console/tables/{key}/detail",
    ],
    "operator": [
        "GET /console/payments/{id}/export",
        "GET /console/inbox/{id}/body",
        "GET /console/tables/{key}/export",
        "POST /console/payments/{id}/refresh",
        "POST /console/payments/{id}/cancel",
        "POST /console/payments/{id}/capture",
        "POST /console/payments/{id}/refund",
        "POST /console/payments/{id}/resolve",
        "POST /console/inbox/{id}/replay",
        "POST /console/outbox/{id}/redrive",
        "POST /console/quarantine/{id}/redeem",
        "POST /console/tables/inbox/replay",
        "POST /console/tables/outbox/redrive",
        "POST /console/tables/quarantine/redeem",
    ],
    "admin": [
        "GET /console/people",
        "POST /console/people",
        "POST /console/people/{id}/role",
        "POST /console/people/{id}/disable",
        "POST /console/people/{id}/enable",
        "POST /console/people/{id}/logout",
        "POST /console/people/{id}/password",
    ],
}
LEAST = {route: role for role, routes in CONSOLE.items() for route in routes}
RANK = ["", *Role]

#: The scope of each operation of the API.
API = {
    "create_payment": "write",
    "track_payment": "write",
    "refresh_payment": "write",
    "cancel_payment": "write",
    "capture_payment": "write",
    "refund_payment": "write",
    "list_payments": "read",
    "get_payment": "read",
    "get_timeline": "read",
    "list_transitions": "read",
    "list_events": "read",
    "list_inbox": "read",
    "get_inbox_message": "read",
    "list_outbox": "read",
    "get_outbox_message": "read",
    "list_rejected": "read",
    "get_rejected": "read",
    "list_accounts": "read",
    "list_lifecycles": "read",
    "get_account": "read",
    "get_push_quality": "read",
    "list_reconciliations": "read",
    "get_reconciliation": "read",
    "list_actions": "read",
    "prove_payment": "read",
    "resolve_payment": "operate",
    "get_inbox_body": "operate",
    "replay_inbox_message": "operate",
    "redrive_outbox": "operate",
    "redrive_outbox_message": "operate",
    "export_payment": "operate",
    "list_keys": "admin",
    "add_key": "admin",
    "rotate_key": "admin",
    "revoke_key": "admin",
}

#: What nobody but an operator may see, and where it is planted.
BODY, HEADER, CLIENT = "body-of-the-payer-7f3a", "header-of-the-payer-7f3a", "203.0.113.77"

KEYS = ["payments", "inbox", "outbox", "quarantine", "reconciliations", "actions", "audit"]


@pytest.fixture(scope="module")
def console(tmp_path_factory, template):
    with on_sqlite(tmp_path_factory.mktemp("console"), template) as served:
        yield served


@pytest.fixture(scope="module")
def api(tmp_path_factory, template):
    folder = tmp_path_factory.mktemp("api")
    shutil.copyfile(template, folder / "receipted.db")
    with serving(load.load(write_settings(folder, NOWHERE, extra=LIVE_ACCOUNT), {})) as found:
        yield found


@pytest.fixture(scope="module")
def kept(console):
    return planted(console)


def planted(served):
    """A payment whose webhook, refused delivery and quarantine hold what only some may see."""
    tell = Teller(served)
    message_id = tell.push(
        "stable",
        b'{"id": "evt_1", "type": "payment_intent.confirmed", "data": {"id": "pi_1", "status": "confirmed", '
        b'"amount": 450, "currency": "usd", "note": "' + BODY.encode() + b'"}}',
        headers=(("x-forwarded-for", HEADER), ("x-stablegenius-signature", f"sha256={HEADER}")),
    )
    payment = tell.by_ref("stable", "pi_1")
    about = {"account": "stable", "kind": payment.kind, "about": payment.id}
    headers = [["x-note", HEADER], ["x-stablegenius-signature", HEADER]]
    rejected_id = rejecting(served, body=BODY.encode(), headers=headers, client=CLIENT, **about)
    return {"payments": payment.id, "inbox": message_id, "quarantine": rejected_id}


def routes_of(served):
    (mounted,) = (route for route in served.mounted if isinstance(route, ConsoleRoute))
    return mounted._router.routes


def addresses(kept):
    """The declared routes with rows that there are in their places: (route, method, path)."""
    for route in LEAST:
        method, _, path = route.partition(" ")
        for key in KEYS if "{key}" in path else [""]:
            found = path.replace("{key}", key)
            if path.endswith("/detail"):
                found += f"?pk={kept.get(key, new_id())}"
            if method == "GET":
                found = found.replace("payments/{id}", f"payments/{kept['payments']}")
                found = found.replace("inbox/{id}", f"inbox/{kept['inbox']}")
            name = "console.css" if "static" in path else "stable"
            yield route, method, found.replace("{name}", name).replace("{id}", new_id())


def test_the_declared_routes_are_those_that_are_served(console):
    served = {
        f"{method} {name}"
        for route, name in named_routes(routes_of(console))
        for method in (route.methods or set()) - {"HEAD"}
    }

    assert served == set(LEAST) == set(ROUTE_PERMISSIONS)
    assert {
        route: "" if needed is None else role_for(needed).value for route, needed in ROUTE_PERMISSIONS.items()
    } == LEAST


def test_a_route_without_a_declared_permission_does_not_start(console):
    with pytest.raises(RuntimeError, match="/console/me"):
        RoutePermissions([route for route, name in named_routes(routes_of(console)) if name != "/console/me"])


@pytest.mark.parametrize("role", RANK)
def test_every_route_of_the_console_opens_to_its_roles_alone(console, kept, role):
    tried = 0
    for route, method, path in addresses(kept):
        browser = console.client(role or None)
        for each in ("GET", "HEAD") if method == "GET" else ("POST",):
            with browser.http.stream(each, path, **form(console, browser, each)) as answer:  # some never end
                text = "" if path.endswith("live") else answer.read().decode("utf-8", "replace")
            may = RANK.index(role) >= RANK.index(LEAST[route])
            if not role and LEAST[route]:
                assert answer.status_code in (303, 401), (each, path)
            elif each == "HEAD":
                assert (answer.status_code == 403) is not may, (each, path)
            else:
                assert (answer.status_code == 403 and "this needs" in text) is not may, (each, path, text[:300])
            assert answer.status_code < 500, (each, path)
        tried += 1
    assert tried == len(LEAST) + 3 * (len(KEYS) - 1)


def form(console, browser, method):
    """What a browser sends with a form of ours."""
    if method != "POST":
        return {}
    data = {"csrf": browser.csrf} if browser.secret is not None else {}
    return {"data": data, "headers": {"origin": console.base_url, "sec-fetch-site": "same-origin"}}


def seen(browser, kept):
    """Everything that the pages and files of the console show to this browser."""
    found = []
    for _, method, path in addresses(kept):
        if method == "GET" and not path.endswith("live"):
            found.append(browser.get(path).text)
    return "\n".join(found)


def test_a_viewer_sees_no_bytes_headers_or_addresses_at_any_door(console, kept):
    shown = seen(console.client(Role.VIEWER), kept)

    assert kept["inbox"] in shown
    assert kept["quarantine"] in shown
    assert [marker for marker in (BODY, HEADER, CLIENT) if marker in shown] == []


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.ADMIN])
def test_who_may_see_bytes_headers_and_addresses_sees_them(console, kept, role):
    shown = seen(console.client(role), kept)

    assert [marker for marker in (BODY, HEADER, CLIENT) if marker not in shown] == []


def test_every_operation_of_the_api_has_a_declared_scope():
    assert {operation.operation_id: operation.scope.value for operation in operations()} == API


@pytest.mark.parametrize("scopes", [s for n in range(len(KeyScope)) for s in itertools.combinations(KeyScope, n + 1)])
def test_every_operation_of_the_api_opens_to_its_scope_alone(api, scopes):
    client = api.client(api.key(*scopes))
    for operation in operations():
        path = operation.path.replace("{id}", new_id()).replace("{account}", "payfield")
        answer = client.request(operation.method, path, json={} if operation.method == "POST" else None)
        may = API[operation.operation_id] in [scope.value for scope in scopes]
        assert (answer.status_code == 403) is not may, (operation.operation_id, answer.text)
        if not may:
            assert error(answer, 403)["code"] == "scope_missing"
        assert answer.status_code < 500


@pytest.mark.parametrize("scope", KeyScope)
def test_a_key_sees_bytes_headers_and_addresses_by_its_scope(tmp_path, template, scope):
    with ExitStack() as stack:
        served = stack.enter_context(on_sqlite(tmp_path, template))
        kept = planted(served)
        running = stack.enter_context(serving(served.service.settings))
        client = running.client(running.key(scope))
        shown = ""
        for operation in operations():
            if operation.method == "GET":
                kind = operation.path.split("/")[2]
                row = kept.get({"rejected": "quarantine"}.get(kind, kind), new_id())
                shown += client.get(operation.path.replace("{id}", row).replace("{account}", "stable")).text

    if scope is KeyScope.OPERATE:
        assert BODY in shown
    else:
        assert [marker for marker in (BODY, HEADER, CLIENT) if marker in shown] == []
    assert (kept["quarantine"] in shown) is (scope is KeyScope.READ)


def test_the_address_of_a_rejected_delivery_needs_read_and_operate(tmp_path, template):
    with on_sqlite(tmp_path, template) as served:
        kept = planted(served)
        with serving(served.service.settings) as running:
            path = f"/v1/rejected/{kept['quarantine']}"
            both = running.client(running.key(KeyScope.READ, KeyScope.OPERATE)).get(path).json()
            read = running.client(running.key(KeyScope.READ)).get(path).json()

    assert (both["client"], read["client"]) == (CLIENT, None)


def test_what_roles_and_scopes_grant():
    """Every role may do what the one before it may, an admin everything, and no scope implies another."""
    for less, more in itertools.pairwise(Role):
        assert ROLES[less] < ROLES[more]
    assert ROLES[Role.ADMIN] == frozenset(Permission)
    for one, other in itertools.combinations(KeyScope, 2):
        assert not SCOPES[one] & SCOPES[other]
    assert granted(["nothing", "read"]) == SCOPES[KeyScope.READ]
