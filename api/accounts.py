"""Accounts, lifecycles, and the measured quality of webhooks."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

from fastapi import Query
from pydantic import ConfigDict, Field

from api.caller import ApiCaller, PathAccount, ReadCaller
from api.responses import missing
from api.routing import api_router
from api.schemas import Shape
from api.validation import WHOLE, Input, Name
from statemachine.lifecycle import Lifecycle
from storage import webhook_health
from storage.webhook_health import AccountFigures, EventFigures

router = api_router("Accounts")

_NO_ACCOUNT: Final = missing("no such account")


class AccountAnswer(Shape):
    """One account of yours at a provider."""

    object: Literal["account"] = "account"
    name: str
    provider: str
    environment: Literal["live", "test"]
    webhook_url: str = Field(description="where the provider is to deliver")
    default_kind: str
    kinds: list[str]
    capabilities: dict[str, list[str]] = Field(
        description="by call (create, ask, cancel, list, register and so on), the kinds that the provider has it for; "
        "a provider without ask is never asked, and refresh and track are refused"
    )


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
    """Lifecycle of the payments of one kind."""

    object: Literal["lifecycle"] = "lifecycle"
    name: str
    provider: str
    kind: str
    initial: list[str]
    states: list[StateAnswer]
    moves: dict[str, list[str]]


class LifecyclesQuery(Input):
    """Filter of lifecycles."""

    provider: Name | None = Field(None, description="of this provider")


class Lifecycles(Shape):
    """Lifecycles."""

    object: Literal["list"] = "list"
    data: list[LifecycleAnswer]
    has_more: Literal[False] = False


class PushQuery(Input):
    """Account and period of the quality of webhooks."""

    account: Name | None = Field(None, description="of this account")
    days: Annotated[int, Field(ge=1, le=366), WHOLE] = Field(7, description="whole days of UTC up to today")


class PushEvent(Shape):
    """Quality of the webhooks for one kind of change."""

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
    """Quality of one account's webhooks, and its open alarms."""

    object: Literal["push_quality"] = "push_quality"
    account: str
    measured_at: datetime | None
    heard_at: datetime | None = Field(description="the last verified delivery")
    deliveries: int
    rejected: int
    skew_seconds: float | None = Field(description="the provider's clock less ours")
    alarms: dict[str, Any]
    events: list[PushEvent]


class PushQualityList(Shape):
    """Quality of webhooks, by account."""

    model_config = ConfigDict(title="PushQuality")

    object: Literal["list"] = "list"
    data: list[PushAccount]
    has_more: Literal[False] = False


@router.get("/accounts", operation_id="list_accounts")
async def list_accounts(caller: ReadCaller) -> Accounts:
    """List the accounts that the key reaches."""
    return Accounts(data=[_account(caller, name) for name in caller.account_names])


@router.get("/accounts/{account}", operation_id="get_account", responses=_NO_ACCOUNT)
async def get_account(caller: ReadCaller, account: PathAccount) -> AccountAnswer:
    """Show an account."""
    return _account(caller, caller.account(account).name)


@router.get("/lifecycles", operation_id="list_lifecycles")
async def list_lifecycles(caller: ReadCaller, query: Annotated[LifecyclesQuery, Query()]) -> Lifecycles:
    """List lifecycles: states, phases and moves, by provider and kind."""
    found = caller.deps.lifecycles.items()
    return Lifecycles(data=[_lifecycle(*key, life) for key, life in found if query.provider in (None, key[0])])


@router.get("/push-quality", operation_id="get_push_quality", responses=_NO_ACCOUNT)
async def get_push_quality(caller: ReadCaller, query: Annotated[PushQuery, Query()]) -> PushQualityList:
    """Show the quality of webhooks: on time, late or lost, and their lag."""
    names = caller.accounts(query.account)
    today = caller.deps.clock().date()
    found = await caller.read(
        lambda unit: webhook_health.figures(unit, query.account, today - timedelta(days=query.days - 1), today)
    )
    return PushQualityList(data=[_push(figures) for figures in found if figures.account in names])


def _account(caller: ApiCaller, name: str) -> AccountAnswer:
    found = caller.deps.accounts[name]
    return AccountAnswer(
        name=found.name,
        provider=found.provider,
        environment="live" if found.environment == "live" else "test",
        webhook_url=found.webhook_url,
        default_kind=found.default_kind,
        kinds=list(found.lifecycles),
        capabilities={call: list(kinds) for call, kinds in found.capabilities.items()},
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
