"""Options of an account at Payfield, where its dialects differ or docs are silent."""

from typing import Literal

from pydantic import Field

from providers.contract import ProviderOptions
from providers.signing import Encoding


class PayfieldOptions(ProviderOptions):
    """Settings of one Payfield shop."""

    dialect: Literal["new", "old"] = Field(
        "new", description="how amounts are sent: decimal strings (new: bdt-hrs, bdt/ars pages) or numbers (old)"
    )
    digest_encoding: Encoding = Field("hex", description="how signatures are written; the pages do not say")
    timestamp_format: Literal["iso", "unix"] = Field("iso", description="how our requests write X-Timestamp")
    default_kind: Literal["payin", "payout", "ask"] = Field(
        "ask",
        description="what a callback is about when neither its body nor its URL (?kind=) says; `ask` believes no more"
        " than that something changed and asks the provider, since a payin and a payout may have the same id",
    )
    shop_code: str | None = Field(
        None, min_length=1, description="the shop to create in and to search; the provider's default shop when absent"
    )
    allow_loopback_http: bool = Field(False, description="for development: callback URLs may be http:// on loopback")
