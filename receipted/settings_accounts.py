"""The settings of provider accounts, and of the keys that they and the tokens use."""

from datetime import datetime, timedelta
from typing import Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, field_validator

from providers.contract import Budget
from providers.signing import Key, KeyRing, Window
from receipted.secrets import Secret
from statemachine.phases import ConflictPolicy

#: Marks a setting that has no default. The model lets it be absent so that the checks can report it with all the rest.
REQUIRED: Final[dict[str, JsonValue]] = {"required": True}


class Section(BaseModel):
    """A part of the settings: unknown names are refused, nothing changes after the start, no input is echoed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


class TokenKey(Section):
    """A key of callback and return tokens."""

    id: str = Field("", description="names the key; may be shown", json_schema_extra=REQUIRED)
    secret: Secret = Field(
        default_factory=Secret.missing,
        description="a reference, env:NAME or file:path, to at least 16 bytes",
        json_schema_extra=REQUIRED,
    )


class WebhookKey(TokenKey):
    """A key that verifies an account's deliveries, valid from `not_before` until just before `not_after`."""

    not_before: AwareDatetime | None = Field(None, description="the first instant at which the key verifies")
    not_after: AwareDatetime | None = Field(None, description="the instant from which the key no longer verifies")

    def key(self) -> Key:
        """The key as verifiers use it: the secret's literal text in UTF-8."""
        return Key(self.id, self.secret.reveal().encode(), self.not_before, self.not_after)


class BudgetSettings(Section):
    """How many requests an account may send in how many seconds."""

    requests: int = Field(ge=1, description="how many requests may be sent")
    seconds: float = Field(gt=0, description="in how many seconds")


class AccountSettings(Section):
    """One account at one provider."""

    provider: str = Field("", description="which provider the account is at", json_schema_extra=REQUIRED)
    environment: Literal["live", "test"] = Field(
        "live",
        description="live, or test for a provider's sandbox: which API keys reach it, and what bodies must say",
    )
    base_url: str | None = Field(None, description="where the provider is called, when not at its usual URL")
    secrets: dict[str, Secret] = Field(
        default_factory=dict, description="what the provider's client needs, by name", json_schema_extra=REQUIRED
    )
    webhook_keys: tuple[WebhookKey, ...] = Field(
        (), description="the keys that verify deliveries; several while a key is rotated", json_schema_extra=REQUIRED
    )
    window_past_seconds: float = Field(300, ge=0, description="how many seconds old a delivery's signed time may be")
    window_future_seconds: float = Field(
        300, ge=0, description="how many seconds ahead a delivery's signed time may be"
    )
    budget: BudgetSettings | None = Field(
        None, description="requests in seconds that may be sent, when not the provider's documented limit"
    )
    conflicts: Literal["review", "trust_provider"] = Field(
        "review", description="what happens when the provider, asked, confirms a conflict: review or trust_provider"
    )
    unknown_payments: Literal["adopt", "park"] = Field(
        "adopt", description="what happens to an event of a payment that was not created here: adopt or park"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="the provider's own options, by name")

    @field_validator("base_url")
    @classmethod
    def _without_slash(cls, value: str | None) -> str | None:
        return value.rstrip("/") if value is not None else None

    def keyring(self) -> KeyRing:
        """The keys that verify this account's deliveries, in configured order."""
        return KeyRing(tuple(key.key() for key in self.webhook_keys))

    def window(self) -> Window:
        """How far a delivery's timestamp may lie from the instant of receipt."""
        return Window(timedelta(seconds=self.window_past_seconds), timedelta(seconds=self.window_future_seconds))

    def configured_budget(self) -> Budget | None:
        """The budget of the settings; None where the provider's documented one applies."""
        return Budget(self.budget.requests, self.budget.seconds) if self.budget else None

    def conflict_policy(self) -> ConflictPolicy:
        """What the account does about a confirmed conflict."""
        return ConflictPolicy(self.conflicts)

    def revealed_secrets(self) -> dict[str, str]:
        """What the provider's client needs, by name."""
        return {name: secret.reveal() for name, secret in self.secrets.items()}

    def has_active_key(self, now: datetime) -> bool:
        """Whether any delivery can be verified at this instant."""
        return any(True for _ in self.keyring().active(now))
