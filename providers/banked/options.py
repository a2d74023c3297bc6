"""Options of an account at Banked, for what its documentation leaves open."""

from typing import Literal, Self

from pydantic import Field, model_validator

from providers.contract import ProviderOptions


class BankedOptions(ProviderOptions):
    """Settings of one Banked account."""

    auth: Literal["basic", "oauth"] = Field("basic", description="how calls are authorised; partners use oauth")
    scope: str = Field("", description="with oauth: the id of the business application")
    webhook_version: Literal["v2", "v3"] = Field("v2", description="which generation of webhooks to register")
    events: tuple[str, ...] = Field(
        (), description="events to register for; those of payments in that generation when empty"
    )
    signature_key_field: str = Field(
        "signature_key", min_length=1, description="the registration's name for the key; the pages do not give it"
    )
    deleted_state: Literal["deleted", "failed"] = Field(
        "deleted", description="what a session is after a DELETE that left nothing to read"
    )
    list_path: str | None = Field(
        None,
        pattern=r"^/[^?#]*[^/?#]$",
        description="where resources are listed, such as /v2/payment_sessions; no list is asked for without it, because"
        " it has no cursor and no page shows the names of its time filters",
    )
    list_kind: Literal["payment_session", "payin", "refund", "payout"] = Field(
        "payment_session", description="what that path lists"
    )
    list_after: str | None = Field(
        None, pattern=r"^[A-Za-z_.\[\]-]+$", description="the query's name for the instant that they were created after"
    )
    list_before: str | None = Field(
        None,
        pattern=r"^[A-Za-z_.\[\]-]+$",
        description="the query's name for the instant that they were created before; without it only the newest 100"
        " can be listed, and a longer list ends with a fault",
    )
    allow_loopback_http: bool = Field(False, description="for development: our URLs may be http:// on loopback")

    @model_validator(mode="after")
    def _has_scope(self) -> Self:
        if self.auth == "oauth" and not self.scope:
            raise ValueError("auth = oauth needs a scope, the id of the business application")
        return self
