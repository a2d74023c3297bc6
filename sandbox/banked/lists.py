"""Banked's lists: newest first, at most 100, by state and time, no cursor."""

from sandbox.banked.errors import refuse
from sandbox.provider import Provider, whole
from sandbox.times import parsed
from sandbox.web import Call
from sandbox.world import Resource

#: The provider speaks of time filters and does not name them, so these names are ours.
_TIMES = ("created_after", "created_before")


def listed(owner: Provider, call: Call, kind: str) -> list[Resource]:
    """Return the newest `limit` (100) resources that pass the filters.

    400 for a time that is not ISO 8601.
    """
    since, until = (parsed(call.query.get(name, "")) for name in _TIMES)
    wrong = [name for name, at in zip(_TIMES, (since, until), strict=True) if at is None and name in call.query]
    if wrong:
        raise refuse(call, [("invalid_request", name) for name in wrong])
    state = call.query.get("state")
    found = [
        item
        for item in reversed(owner.world.all(owner.name, kind))
        if item.state != "deleted"
        and state in (None, item.state)
        and (since is None or item.created_at > since)
        and (until is None or item.created_at < until)
    ]
    return found[: whole(call.query.get("limit"), 100, 100)]
