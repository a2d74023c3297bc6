"""Addresses of the console's pages, such as the rows behind a figure."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, urlencode

_TABLES: Final = "/console/tables"


def table(name: str, **filters: str | None) -> str:
    """Return the address of a table with these filters."""
    wanted = {key: value for key, value in filters.items() if value}
    return f"{_TABLES}/{name}/list" + (f"?{urlencode(wanted)}" if wanted else "")


def account(name: str) -> str:
    """Return the address of the account's page."""
    return f"/console/accounts/{quote(name, safe='')}"


def payment(payment_id: str) -> str:
    """Return the address of the payment's page."""
    return f"/console/payments/{quote(payment_id, safe='')}"


def money(
    day: str,
    account_name: str,
    currency: str | None,
    way: str,
    kinds: Sequence[str],
    until: str | None = None,
    after: str | None = None,
) -> str:
    """Return the address of the payments of a sum; `until` is a time (HH:MM)."""
    asked = {"day": day, "account": account_name, "currency": currency, "way": way, "until": until, "after": after}
    wanted = [(name, value) for name, value in asked.items() if value]
    return f"/console/money?{urlencode([*wanted, *(('kind', kind) for kind in kinds)])}"


def reconciliation(reconciliation_id: str) -> str:
    """Return the address of the reconciliation's page."""
    return f"{_TABLES}/reconciliations/detail?pk={quote(reconciliation_id, safe='')}"
