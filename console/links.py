"""Where the rows behind a figure are: the tables with their filters, as addresses."""

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, urlencode

_TABLES: Final = "/console/tables"


def table(name: str, **filters: str | None) -> str:
    """The table of this name with those rows of which each filter is true."""
    wanted = {key: value for key, value in filters.items() if value}
    return f"{_TABLES}/{name}/list" + (f"?{urlencode(wanted)}" if wanted else "")


def account(name: str) -> str:
    """The account's own page."""
    return f"/console/accounts/{quote(name, safe='')}"


def payment(payment_id: str) -> str:
    """The payment's own page."""
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
    """The payments that a sum of money counts; `until` is an hour and minute of the day."""
    asked = {"day": day, "account": account_name, "currency": currency, "way": way, "until": until, "after": after}
    wanted = [(name, value) for name, value in asked.items() if value]
    return f"/console/money?{urlencode([*wanted, *(('kind', kind) for kind in kinds)])}"


def reconciliation(reconciliation_id: str) -> str:
    """The reconciliation's own page among the tables."""
    return f"{_TABLES}/reconciliations/detail?pk={quote(reconciliation_id, safe='')}"
