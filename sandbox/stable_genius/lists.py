"""Stable Genius' list of one merchant's intents, newest first."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sandbox.paging import UnknownCursor, cut
from sandbox.provider import whole
from sandbox.stable_genius.account import Account
from sandbox.stable_genius.errors import refuse
from sandbox.times import parsed
from sandbox.web import Call
from sandbox.world import Resource

STATES = frozenset({"awaiting_payment", "confirmed", "expired", "cancelled", "settled"})


def listed(owner: Account, call: Call, *, is_live: bool) -> dict[str, Any]:
    """Build the list envelope with at most `limit` (25, up to 100) intents.

    400 for a filter or cursor that is none.
    """
    query = call.query
    merchant, status = _merchant(owner, query.get("merchant_id")), query.get("status")
    if status is not None and status not in STATES:
        raise refuse("invalid_request", "no such status", "status")
    since, until = _instant(query, "created_after"), _instant(query, "created_before")

    def is_wanted(item: Resource) -> bool:
        return (
            status in (None, item.state)
            and (since is None or item.created_at > since)
            and (until is None or item.created_at < until)
        )

    rows = [
        (item.ref, item)
        for item in reversed(owner.world.all(owner.name))
        if item.is_live == is_live and item.data["merchant_id"] == merchant
    ]
    after, before = query.get("starting_after"), query.get("ending_before")
    try:
        page = cut(rows, is_wanted, whole(query.get("limit"), 25, 100), after=after, before=before)
    except UnknownCursor as fault:
        raise refuse("invalid_request", f"no such intent: {fault}", "starting_after") from None
    is_backwards = after is None and before is not None
    return {
        "object": "list",
        "data": [owner.shown(item) for item in page.rows],
        "has_more": page.has_previous if is_backwards else page.has_next,
        "total_count": sum(is_wanted(item) for _, item in rows),
    }


def _merchant(owner: Account, merchant: str | None) -> str:
    own = owner.config.stable_genius
    if not merchant:
        raise refuse("invalid_request", "merchant_id is required", "merchant_id")
    if not merchant.startswith("mer_"):
        raise refuse("invalid_merchant", param="merchant_id")
    if merchant not in own.merchants + own.suspended_merchants:
        raise refuse("merchant_not_found", param="merchant_id")
    return merchant


def _instant(query: Mapping[str, str], name: str) -> datetime | None:
    at = parsed(query.get(name, ""))
    if at is None and name in query:
        raise refuse("invalid_request", f"{name} is not ISO 8601", name)
    return at
