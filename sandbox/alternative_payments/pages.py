"""Alternative Payments' pages: opaque cursors in either documented envelope."""

import base64
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sandbox.alternative_payments.account import Account
from sandbox.paging import UnknownCursor, cut
from sandbox.provider import whole
from sandbox.times import parsed
from sandbox.web import Call

Row = dict[str, Any]


def paged(
    owner: Account, rows: list[Row], call: Call, is_wanted: Callable[[Row], bool] = lambda _: True
) -> dict[str, Any]:
    """Return the wanted rows after or before a cursor, at most `limit` (100).

    400 for a cursor that is none.
    """
    limit = whole(call.query.get("limit"), 100, 100)
    after, before = call.query.get("after"), call.query.get("before")
    try:
        page = cut([(_cursor(row), row) for row in rows], is_wanted, limit, after=after, before=before)
    except UnknownCursor:
        raise owner.refuse(400, "no such cursor") from None
    cursors = {
        "start_cursor": _cursor(page.rows[0]) if page.rows else None,
        "end_cursor": _cursor(page.rows[-1]) if page.rows else None,
        "has_next_page": page.has_next,
        "has_previous_page": page.has_previous,
    }
    if owner.config.alternative_payments.page_shape == "nested":
        return {"data": page.rows, "pagination": cursors}
    return {"data": page.rows, **cursors}


def instant_of(owner: Account, call: Call, name: str) -> datetime | None:
    """Parse the instant in the query; 400 for one that is not ISO 8601."""
    at = parsed(call.query.get(name, ""))
    if at is None and name in call.query:
        raise owner.refuse(400, f"{name} is not ISO 8601", {name: "must be ISO 8601"})
    return at


def _cursor(row: Row) -> str:
    """Opaque, and as documented with characters that a query must escape."""
    return base64.b64encode(b"\x81\xa1i\xc7" + uuid.UUID(row["id"]).bytes + b"\xfb\xef").decode()
