"""Payfield's authorisation, validation and error table, in both dialects."""

import hmac
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sandbox.config import PayfieldShop
from sandbox.provider import magic_code, read_json
from sandbox.signing import payfield_digest
from sandbox.times import now, parsed
from sandbox.web import ApiError, Call, json_reply

WINDOW = timedelta(seconds=60)

#: name of the row -> (HTTP status, code, message, field). Statuses and codes that no page gives are ours.
ERRORS: dict[str, tuple[int, str, str, str]] = {
    "api_key_required": (401, "unauthorized", "API key required", ""),
    "invalid_api_key": (401, "unauthorized", "Invalid API key", ""),
    "timestamp_required": (401, "unauthorized", "Timestamp required", ""),
    "signature_required": (401, "unauthorized", "Signature required", ""),
    "invalid_timestamp_format": (401, "unauthorized", "Invalid timestamp format", ""),
    "timestamp_window_exceeded": (401, "unauthorized", "Timestamp window exceeded", ""),
    "invalid_signature": (401, "unauthorized", "Invalid signature", ""),
    "forbidden": (403, "forbidden", "Access denied", ""),
    "not_found": (404, "not_found", "Not found", ""),
    "payin_not_found": (404, "not_found", "PayIn not found", ""),
    "payout_not_found": (404, "not_found", "Payout not found", ""),
    "method_not_allowed": (405, "method_not_allowed", "Method not allowed", ""),
    "invalid_body": (422, "validation_error", "Invalid JSON body", ""),
    "external_id_required": (422, "validation_error", "external_id is required", "external_id"),
    "amount_not_positive": (422, "validation_error", "amount must be a positive decimal string", "amount"),
    "currency_required": (422, "validation_error", "currency is required", "currency"),
    "card_number_required": (422, "validation_error", "card_number is required", "card_number"),
    "callback_url_invalid": (422, "validation_error", "callback_url must be a valid URL", "callback_url"),
    "payment_data_invalid": (422, "validation_error", "Invalid paymentData", "paymentData"),
    "merchant_user_id_required": (
        422,
        "validation_error",
        "merchant_user_id is required",
        "merchant_user_id",
    ),
    "merchant_user_ip_required": (
        422,
        "validation_error",
        "merchant_user_ip is required",
        "merchant_user_ip",
    ),
    "currency_mismatch": (422, "business_error", "Shop currency mismatch. Expected {currency}.", ""),
    "insufficient_balance": (422, "business_error", "Insufficient balance for this payout", ""),
    "no_default_shop": (422, "business_error", "No default active shop", ""),
    "external_id_conflict": (422, "business_error", "external_id was used with other parameters", ""),
    "server_error_500": (500, "server_error", "Server error", ""),
    "server_error_502": (502, "server_error", "Bad gateway", ""),
    "server_error_503": (503, "server_error", "Service unavailable", ""),
    "server_error_504": (504, "server_error", "Gateway timeout", ""),
}

#: `sandbox:<status>` for those who remember the status and not the row.
BY_STATUS = {"401": "invalid_signature", "403": "forbidden", "404": "not_found", "500": "server_error_500"}


class Requests:
    """Lets a call pass or raises the documented refusal."""

    def __init__(self, shop: PayfieldShop, is_acceptable: Callable[[object], bool]) -> None:
        self._shop, self._is_acceptable = shop, is_acceptable
        self._is_new = shop.dialect == "new"

    def refuse(self, row: str) -> ApiError:
        """Build the error of this row in this shop's dialect, to be raised."""
        status, code, message, field = ERRORS[row]
        message = message.format(currency=self._shop.currency)
        if row == "amount_not_positive" and not self._is_new:
            message = "amount must be a positive number"
        body: dict[str, Any] = {"message": message}
        if field:
            body["errors"] = [{"field": field, "message": message}]
        if self._is_new:
            body |= {"code": code, "error": {"code": code, "message": message}}
        return ApiError(json_reply(status, body))

    def provoke(self, reference: object) -> None:
        """Raise the row that a magic reference asks for."""
        row = magic_code(reference)
        row = BY_STATUS.get(row, row)
        if row in ERRORS:
            raise self.refuse(row)

    def authorise(self, call: Call) -> None:
        """Key, then timestamp, then signature: the order of the provider's own table."""
        if call.is_behind_stage:
            return
        key = call.headers.get("x-api-key", "")
        stamp = call.headers.get("x-timestamp", "")
        signature = call.headers.get("x-signature", "")
        if not key:
            raise self.refuse("api_key_required")
        if not hmac.compare_digest(key.encode(), self._shop.api_key.encode()):
            raise self.refuse("invalid_api_key")
        if not stamp:
            raise self.refuse("timestamp_required")
        if not signature:
            raise self.refuse("signature_required")
        at = _instant(stamp)
        if at is None:
            raise self.refuse("invalid_timestamp_format")
        if abs(now() - at) > WINDOW:
            raise self.refuse("timestamp_window_exceeded")
        expected = payfield_digest(self._shop.api_secret, stamp.encode() + call.body, self._shop.digest)
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            raise self.refuse("invalid_signature")

    def read(self, call: Call) -> dict[str, Any]:
        """Parse the JSON object in the body."""
        return read_json(call, self.refuse("invalid_body").reply)

    def check(self, body: dict[str, Any], kind: str) -> Decimal:
        """Return the amount of a valid body; the first broken rule is raised."""
        if not isinstance(body.get("external_id"), str) or not body["external_id"].strip():
            raise self.refuse("external_id_required")
        amount = decimal_of(body.get("amount"), self._shop.dialect)
        if amount is None:
            raise self.refuse("amount_not_positive")
        if not isinstance(body.get("currency"), str) or len(body["currency"]) != 3:
            raise self.refuse("currency_required")
        if kind == "payout" and not _is_text(body.get("card_number")):
            raise self.refuse("card_number_required")
        if self._is_new:
            for field in ("merchant_user_id", "merchant_user_ip"):
                if not _is_text(body.get(field)):
                    raise self.refuse(f"{field}_required")
        if body.get("callback_url") is not None and not self._is_acceptable(body["callback_url"]):
            raise self.refuse("callback_url_invalid")
        self._check_payment_data(body.get("paymentData"), kind)
        if body.get("shop_code") not in (None, "", self._shop.shop_code):
            raise self.refuse("forbidden")
        if not body.get("shop_code") and not self._shop.is_default:
            raise self.refuse("no_default_shop")
        if body["currency"] != self._shop.currency:
            raise self.refuse("currency_mismatch")
        return amount

    def _check_payment_data(self, value: object, kind: str) -> None:
        if value is None:
            return
        known = {
            "INR": {"ifsc_code", "holder"},
            "BDT": {"wallet_provider"},
            "ARS": {"recipient_name", "bank_name"},
        }.get(self._shop.currency, set())
        is_valid = isinstance(value, dict) and all(_is_text(item) for item in value.values())
        if not is_valid or (kind == "payout" and known and isinstance(value, dict) and not set(value) <= known):
            raise self.refuse("payment_data_invalid")


def decimal_of(value: object, dialect: str) -> Decimal | None:
    """Parse a positive amount of this dialect; None for anything else."""
    if dialect == "new":
        if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,2})?", value):
            return None
        amount = Decimal(value)
    elif isinstance(value, int | Decimal) and not isinstance(value, bool):
        amount = Decimal(value)
    else:
        return None
    return amount if amount.is_finite() and 0 < amount < 10**15 else None


def _instant(text: str) -> datetime | None:
    if text.isascii() and text.isdigit():
        return datetime.fromtimestamp(int(text), UTC) if len(text) < 12 else None
    return parsed(text)


def _is_text(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip() != ""
