"""Validation of Banked's create bodies; every broken rule is named."""

import re
from collections.abc import Callable
from typing import Any

from sandbox.config import Banked
from sandbox.times import now, parsed

Problem = tuple[str, str]


def is_amount(value: object) -> bool:
    """Return whether this is a positive whole number of minor units."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**12


class SessionChecks:
    """The rules of a v2 payment session."""

    def __init__(self, own: Banked, is_acceptable: Callable[[object], bool]) -> None:
        self._own, self._is_acceptable = own, is_acceptable

    def problems(self, body: dict[str, Any]) -> list[Problem]:
        """Every rule that the body breaks, as code and parameter."""
        return [
            *self._money(body),
            *self._texts(body),
            *self._people(body),
            *self._expiration(body),
        ]

    def _money(self, body: dict[str, Any]) -> list[Problem]:
        found: list[Problem] = []
        items = body.get("line_items")
        if items:
            return self._items(items, body)
        if "amount_cents" in body:
            if not is_amount(body["amount_cents"]):
                found.append(("invalid_amount_cents", "amount_cents"))
        elif body.get("amount") is None:
            found.append(("missing_amount_or_line_items", "amount"))
        elif not is_amount(body["amount"]):
            found.append(("invalid_amount", "amount"))
        if body.get("currency") is None:
            found.append(("missing_currency_or_line_items", "currency"))
        elif body["currency"] not in self._own.currencies:
            found.append(("invalid_currency", "currency"))
        return found

    def _items(self, items: object, body: dict[str, Any]) -> list[Problem]:
        found: list[Problem] = []
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            return [("invalid_request", "line_items")]
        for item in items:
            quantity = item.get("quantity", 1)
            if not is_amount(item.get("amount", item.get("amount_cents"))) or not is_amount(quantity):
                found.append(("invalid_line_items.amount_cents", "line_items.amount_cents"))
            if not _is_text(item.get("description", ""), 140):
                found.append(("invalid_description", "line_items.description"))
        currencies = {str(item.get("currency", body.get("currency"))) for item in items}
        if len(currencies) != 1 or not currencies <= set(self._own.currencies):
            found.append(("invalid_currency", "line_items.currency"))
        return found

    def _texts(self, body: dict[str, Any]) -> list[Problem]:
        found: list[Problem] = []
        reference = body.get("reference")
        if reference is not None and not (
            isinstance(reference, str) and re.fullmatch(r"[A-Za-z0-9 ]{1,18}", reference)
        ):
            found.append(("invalid_reference", "reference"))
        if not _is_text(body.get("description", ""), 140):
            found.append(("invalid_description", "description"))
        found += [
            (f"invalid_{name}", name)
            for name in ("success_url", "error_url")
            if body.get(name) is not None and not self._is_acceptable(body[name])
        ]
        if not isinstance(body.get("email_receipt", False), bool):
            found.append(("invalid", "email_receipt"))
        if not isinstance(body.get("actions", []), list):
            found.append(("invalid_request", "actions"))
        return found

    def _people(self, body: dict[str, Any]) -> list[Problem]:
        found: list[Problem] = []
        payee, payer = body.get("payee"), body.get("payer")
        if payee is not None:
            found += self._payee(payee)
        if payer is not None and not isinstance(payer, dict):
            found.append(("invalid_request", "payer"))
        elif payer and payer.get("email") is not None:
            email = payer["email"]
            if not isinstance(email, str) or not re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", email):
                found.append(("invalid_payer_email", "payer.email"))
        account = body.get("bank_account_id")
        if account is not None and account not in self._own.bank_accounts:
            found.append(("invalid_bank_account", "bank_account_id"))
        return found

    @staticmethod
    def _payee(payee: object) -> list[Problem]:
        if not isinstance(payee, dict):
            return [("invalid_payee", "payee")]
        found: list[Problem] = []
        if not _is_text(payee.get("name"), 140) or not payee["name"].strip():
            found.append(("invalid_payee_name", "payee.name"))
        for name, digits in (("account_number", 8), ("sort_code", 6)):
            if name in payee and not re.fullmatch(rf"[0-9]{{{digits}}}", str(payee[name])):
                found.append(("invalid_payee_account_identifier", f"payee.{name}"))
        return found

    @staticmethod
    def _expiration(body: dict[str, Any]) -> list[Problem]:
        value = body.get("expiration")
        if value is None:
            return []
        at = parsed(value) if isinstance(value, str) else None
        if at is None:
            return [("invalid_expiration_format", "expiration")]
        return [] if at > now() else [("invalid_expiration", "expiration")]


def total(body: dict[str, Any]) -> tuple[int, str]:
    """Amount in minor units and currency of a valid body."""
    items = body.get("line_items")
    if not items:
        return int(body.get("amount") or body["amount_cents"]), str(body["currency"])
    amount = sum(int(item.get("amount", item.get("amount_cents"))) * int(item.get("quantity", 1)) for item in items)
    return amount, str(items[0].get("currency", body.get("currency")))


def _is_text(value: object, most: int) -> bool:
    return isinstance(value, str) and len(value) <= most
