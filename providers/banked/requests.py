"""Requests to Banked, validated by its documented rules before they are sent."""

import re
from collections.abc import Callable, Mapping
from typing import Final
from uuid import UUID

import msgspec

from providers.banked.errors import InvalidBankedCreate
from providers.banked.options import BankedOptions
from providers.contract import CreateRequest, MoneyRequest
from providers.http import require_https

#: Source: https://docs.banked.com/merchant/payments/create-session-merchant
_REFERENCE: Final = re.compile(r"[A-Za-z0-9 ]{1,18}")

_EVENTS: Final = {
    "v2": ("payment_initiated", "payment_pending", "payment_sent", "payment_failed"),
    "v3": ("payment_initiated", "payment_pending", "payment_sent", "payment_failed", "payment_canceled"),
}


def events_of(options: BankedOptions) -> tuple[str, ...]:
    """Return the events to register for."""
    return options.events or _EVENTS[options.webhook_version]


def body_of(request: CreateRequest, *, allow_loopback: bool = False) -> bytes:
    """Build the body of a create call; raise InvalidBankedCreate or InsecureUrl."""
    for name in ("reference", "amount", "currency"):
        if name in request.extra:
            raise InvalidBankedCreate(f"{name} is not one of the further fields", param=name)
    if request.return_url is not None:
        require_https(request.return_url, allow_loopback=allow_loopback)
    return msgspec.json.encode(BODIES[request.kind](request))


def _session(request: CreateRequest) -> dict[str, object]:
    _check_reference(request.reference)
    fields = {**request.extra, "reference": request.reference}
    if request.return_url is not None:
        fields |= {"success_url": request.return_url, "error_url": request.return_url}
    for name in ("success_url", "error_url"):
        if not isinstance(fields.get(name), str):
            raise InvalidBankedCreate(f"Banked requires {name}", param=name)
    if "line_items" in fields:
        _check_line_items(fields["line_items"], request)
        return fields
    return fields | {"amount": request.amount_minor, "currency": request.currency}


def _payin(request: CreateRequest) -> dict[str, object]:
    fields = dict(request.extra)
    if request.return_url is not None:
        fields["checkout_config"] = {**_object(fields, "checkout_config"), "redirect_url": request.return_url}
    identification = _object(fields, "payment_identification")
    fields["payment_identification"] = {**identification, "end_to_end_identification": request.reference}
    fields.setdefault("remittance_information", {"unstructured": request.reference})
    return fields | {"amount": request.amount_minor, "currency": request.currency}


def _refund(request: CreateRequest) -> dict[str, object]:
    """Build a refund in the currency of its session.

    Source: https://docs.banked.com/merchant/payments/refund-session
    """
    _check_reference(request.reference)
    fields = {**request.extra, "reference": request.reference, "amount": request.amount_minor}
    if not any(isinstance(fields.get(name), str) for name in ("payment_session_id", "payment_id")):
        raise InvalidBankedCreate("Banked requires payment_session_id for a refund", param="payment_session_id")
    if request.return_url is not None:
        fields |= {"success_url": request.return_url, "error_url": request.return_url}
    return fields


#: The kinds whose refund the provider documents.
REFUNDABLE: Final = frozenset({"payment_session"})


def refund_of(request: MoneyRequest, key: UUID) -> bytes:
    """Build the body of a refund of a session; its reference follows from the key.

    A reference has at most 18 characters, and no hyphens.
    """
    reference = f"refund {key.hex[:11]}"
    return msgspec.json.encode(
        {"payment_session_id": request.ref, "amount": request.amount_minor, "reference": reference}
    )


#: By kind: what a create call of it carries. The provider documents none for payouts.
BODIES: Final[Mapping[str, Callable[[CreateRequest], dict[str, object]]]] = {
    "payment_session": _session,
    "payin": _payin,
    "refund": _refund,
}


def _check_reference(reference: str) -> None:
    if not _REFERENCE.fullmatch(reference):
        raise InvalidBankedCreate("a reference at Banked is 1 to 18 letters, digits and spaces", param="reference")


def _check_line_items(items: object, request: CreateRequest) -> None:
    """Check that line items add up to the amount, since the provider adds them up."""
    total = 0
    for item in items if isinstance(items, list) and items else [None]:
        amount, quantity = (item.get("amount"), item.get("quantity", 1)) if isinstance(item, dict) else (None, None)
        if type(amount) is not int or type(quantity) is not int or amount < 0 or quantity < 1:
            raise InvalidBankedCreate(
                "each line item needs a whole amount of minor units and quantity", param="line_items"
            )
        if isinstance(item, dict) and item.get("currency") != request.currency:
            raise InvalidBankedCreate("each line item needs the currency of the payment", param="line_items")
        total += amount * quantity
    if total != request.amount_minor:
        raise InvalidBankedCreate("the line items do not come to the amount", param="line_items")


def _object(fields: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = fields.get(name, {})
    if not isinstance(value, dict):
        raise InvalidBankedCreate(f"{name} must be an object", param=name)
    return value
