"""What there is to know beside payments: accounts, lifecycles, and what push is worth."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from api.answers import Shape
from api.operation import Call, Operation
from api.reading import WHOLE, Input, Name
from service.permissions import Permission
from statemachine.lifecycle import Lifecycle
from storage import webhook_health
from storage.webhook_health import AccountFigures, EventFigures


class AccountAnswer(Shape):
    """One account of yours at a provider."""

    object: Literal["account"] = "account"
    name: str
    provider: str
    environment: Literal["live", "test"]
    webhook_url: str = Field(description="where the provider is to deliver")
    default_kind: str
    kinds: list[str]


class Accounts(Shape):
    """The accounts that the key reaches."""

    object: Literal["list"] = "list"
    data: list[AccountAnswer]
    has_more: Literal[False] = False


class StateAnswer(Shape):
    """A state, as the provider names it."""

    name: str
    phase: str
    terminal: bool


class LifecycleAnswer(Shape):
    """What the payments of one kind may go through."""

    object: Literal["lifecycle"] = "lifecycle"
    name: str
    provider: str
    kind: str
    initial: list[str]
    states: list[StateAnswer]
    moves: dict[str, list[str]]


class LifecyclesQuery(Input):
    """Of which provider."""

    provider: Name | None = Field(None, description="of this provider")


class Lifecycles(Shape):
    """Lifecycles."""

    object: Literal["list"] = "list"
    data: list[LifecycleAnswer]
    has_more: Literal[False] = False


class PushQuery(Input):
    """Of which account, over how long."""

    account: Name | None = Field(None, description="of this account")
    days: Annotated[int, Field(ge=1, le=366), WHOLE] = Field(7, description="whole days of UTC up to today")


class PushEvent(Shape):
    """What the push of one kind of change was worth."""

    kind: str
    event: str
    pushing: str = Field(description="whether the provider pushes it at all: yes, no or unknown")
    changes: int
    pushed: int
    late: int
    lost: int
    loss: float | None = Field(description="the share of lost")
    lag_p50_seconds: float | None
    lag_p99_seconds: float | None
    deliveries: int
    duplicates: int
    reordered: int


class PushAccount(Shape):
    """What one account's push was worth, and which alarms stand."""

    object: Literal["push_quality"] = "push_quality"
    account: str
    measured_at: datetime | None
    heard_at: datetime | None = Field(description="the last verified delivery")
    deliveries: int
    rejected: int
    skew_seconds: float | None = Field(description="the provider's clock less ours")
    alarms: dict[str, Any]
    events: list[PushEvent]


class PushQuality(Shape):
    """What push was worth, by account."""

    object: Literal["list"] = "list"
    data: list[PushAccount]
    has_more: Literal[False] = False


async def accounts(call: Call) -> Accounts:
    """List the accounts that the key reaches."""
    return Accounts(data=[_account(call, name) for name in call.reached])


async def account(call: Call) -> AccountAnswer:
    """Show an account."""
    return _account(call, call.account(call.path["account"]).name)


async def lifecycles(call: Call) -> Lifecycles:
    """List what payments may go through: states, phases and moves, by provider and kind."""
    wanted = call.query.provider
    found = call.parts.lifecycles.items()
    return Lifecycles(data=[_lifecycle(*key, life) for key, life in found if wanted in (None, key[0])])


async def push_quality(call: Call) -> PushQuality:
    """Show what the providers' webhooks were worth: told, told late or never, and how soon."""
    query: PushQuery = call.query
    names = call.accounts(query.account)
    today = call.parts.clock().date()
    found = await call.read(
        lambda unit: webhook_health.figures(unit, query.account, today - timedelta(days=query.days - 1), today)
    )
    return PushQuality(data=[_push(figures) for figures in found if figures.account in names])


def _account(call: Call, name: str) -> AccountAnswer:
    found = call.parts.accounts[name]
    return AccountAnswer(
        name=found.name,
        provider=found.provider,
        environment="live" if found.environment == "live" else "test",
        webhook_url=found.webhook_url,
        default_kind=found.default_kind,
        kinds=list(found.lifecycles),
    )


def _lifecycle(provider: str, kind: str, life: Lifecycle) -> LifecycleAnswer:
    return LifecycleAnswer(
        name=life.name,
        provider=provider,
        kind=kind,
        initial=list(life.initial),
        states=[
            StateAnswer(name=state.name, phase=state.phase.value, terminal=state.terminal) for state in life.states
        ],
        moves={source: list(targets) for source, targets in life.moves.items()},
    )


def _push(figures: AccountFigures) -> PushAccount:
    return PushAccount(
        account=figures.account,
        measured_at=figures.measured_at,
        heard_at=figures.heard_at,
        deliveries=figures.deliveries,
        rejected=figures.rejected,
        skew_seconds=_seconds(figures.skew),
        alarms=dict(figures.alarms),
        events=[_event(event) for event in figures.events],
    )


def _event(event: EventFigures) -> PushEvent:
    return PushEvent(
        kind=event.kind,
        event=event.event,
        pushing=event.pushing.value,
        changes=event.changes,
        pushed=event.pushed,
        late=event.late,
        lost=event.lost,
        loss=event.loss,
        lag_p50_seconds=_seconds(event.lag_p50),
        lag_p99_seconds=_seconds(event.lag_p99),
        deliveries=event.deliveries,
        duplicates=event.duplicates,
        reordered=event.reordered,
    )


def _seconds(span: timedelta | None) -> float | None:
    return None if span is None else round(span.total_seconds(), 3)


OPERATIONS: Final = (
    Operation("GET", "/v1/accounts", "list_accounts", "Accounts", Permission.READ, accounts, Accounts),
    Operation(
        "GET",
        "/v1/accounts/{account}",
        "get_account",
        "Accounts",
        Permission.READ,
        account,
        AccountAnswer,
        refusals={404: "no such account"},
    ),
    Operation(
        "GET",
        "/v1/lifecycles",
        "list_lifecycles",
        "Accounts",
        Permission.READ,
        lifecycles,
        Lifecycles,
        query=LifecyclesQuery,
    ),
    Operation(
        "GET",
        "/v1/push-quality",
        "get_push_quality",
        "Accounts",
        Permission.READ,
        push_quality,
        PushQuality,
        query=PushQuery,
        refusals={404: "no such account"},
    ),
)
