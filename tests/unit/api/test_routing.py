"""A route of the API starts with one permission, and documents what it may answer."""

import pytest

from api.caller import AdminCaller, ReadCaller
from api.routing import api_router
from service.permissions import KeyScope


async def without_caller() -> dict[str, str]:
    """Answer anybody."""
    return {}


async def with_two(one: ReadCaller, other: AdminCaller) -> dict[str, str]:
    """Answer for two permissions."""
    return {"one": one.request_id, "other": other.request_id}


async def with_one(caller: ReadCaller) -> dict[str, str]:
    """Answer a caller.

    In more words.
    """
    return {"id": caller.request_id}


@pytest.mark.parametrize("endpoint", [without_caller, with_two])
def test_an_endpoint_without_one_permission_does_not_start(endpoint):
    with pytest.raises(TypeError, match=endpoint.__name__):
        api_router("Tests").get("/tests")(endpoint)


def test_a_route_is_described_by_its_endpoint():
    router = api_router("Tests")
    router.get("/tests", responses={404: {"description": "no such test"}})(with_one)
    (route,) = router.routes

    assert (route.path, route.method, route.scope) == ("/v1/tests", "GET", KeyScope.READ)
    assert (route.summary, route.description) == ("Answer a caller.", "In more words.\n\nScope: `read`.")
    assert route.responses[404]["description"] == "no such test"
    assert set(route.responses) == {200, 400, 401, 403, 404, 429, 500, 503}
