"""Common base of the four providers: resources, dashboard and payer actions."""

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, ClassVar

from starlette.datastructures import Headers, QueryParams

from sandbox.config import SandboxConfig
from sandbox.counts import Counts
from sandbox.deliver import Deliveries
from sandbox.faults import Dice
from sandbox.times import now
from sandbox.urls import is_acceptable
from sandbox.web import ApiError, Call, Handler, Reply, answer
from sandbox.world import IllegalMove, Lifecycle, Resource, World


@dataclass(frozen=True, slots=True)
class Stage:
    """Shared state that every provider acts upon."""

    config: SandboxConfig
    world: World
    dice: Dice
    counts: Counts
    deliveries: Deliveries
    timers: "Timers"


class Timers:
    """Things that will happen later; `stop` forgets them all."""

    def __init__(self) -> None:
        self._handles: set[asyncio.TimerHandle] = set()

    def after(self, seconds: float, act: Any, *args: Any) -> None:
        """Call `act(*args)` in `seconds` of real time, on the running loop."""

        def fire() -> None:
            self._handles.discard(handle)
            act(*args)

        handle = asyncio.get_running_loop().call_later(seconds, fire)
        self._handles.add(handle)

    def stop(self) -> None:
        """Nothing that was to happen will happen."""
        for handle in self._handles:
            handle.cancel()
        self._handles.clear()


class Provider(ABC):
    """One provider on the stage; subclasses add calls, states, events and words."""

    name: ClassVar[str] = ""
    prefix: str = ""
    lifecycles: ClassVar[Mapping[str, Lifecycle]] = {}
    create_paths: ClassVar[Mapping[str, str]] = {}  #: by kind: the path to which a create call of it is posted
    extra_actions: ClassVar[frozenset[str]] = frozenset()  #: actions that move nothing, such as `error`

    def __init__(self, stage: Stage) -> None:
        self.stage, self.config, self.world = stage, stage.config, stage.world
        for kind, lifecycle in self.lifecycles.items():
            self.world.declare(self.name, kind, lifecycle)

    async def run(self, handler: Handler, call: Call) -> Reply:
        """Wait as long as the call is slow, then answer it."""
        if call.slow_seconds:
            await asyncio.sleep(call.slow_seconds)
        return await answer(handler, call)

    @abstractmethod
    def routes(self) -> list[tuple[str, str, Handler]]:
        """Return method, path template and handler of every call."""

    @abstractmethod
    def trouble(self, call: Call, status: int) -> Reply:
        """Build the provider's own answer for 404, 405, 429 and 5xx."""

    @abstractmethod
    def moved(self, resource: Resource, before: str) -> None:
        """Tell the merchant what changed."""

    @abstractmethod
    def register(self, url: str, kind: str, secret: str | None) -> None:
        """Register `url` for events, as a person does in the provider's dashboard."""

    @abstractmethod
    def moves_for(self, resource: Resource, action: str) -> list[str] | None:
        """Return the states that an action walks through; None for no such action."""

    def payer_actions(self, resource: Resource) -> tuple[str, ...]:
        """List the buttons of the checkout page; empty once nothing can be done."""
        return tuple(
            action
            for action in ("pay", "decline", "cancel", "expire")
            if (moves := self.moves_for(resource, action)) and self.world.may(resource, moves[0])
        )

    def return_url(self, resource: Resource) -> str:
        """Return the URL after the checkout; empty when the merchant gave none."""
        return ""

    def create_behind_stage(self, kind: str, body: Any) -> Reply:
        """Create a resource as the merchant's other systems would.

        It is a create call of the provider's own, without credentials or limit.

        Answers as the provider does, its refusals included; KeyError for a kind that is not created by a call.
        """
        path = self.create_paths[kind]
        handler = next(found for method, template, found in self.routes() if (method, template) == ("POST", path))
        headers = Headers({"content-type": "application/json"})
        call = Call("POST", path, headers, QueryParams(), json.dumps(body).encode(), is_behind_stage=True)
        try:
            reply = handler(call)
        except ApiError as error:
            return error.reply
        if not isinstance(reply, Reply):
            msg = f"{self.name} must create without waiting"
            raise TypeError(msg)
        return reply

    def act(self, resource: Resource, action: str, options: Mapping[str, Any]) -> None:
        """Do what a payer, the merchant's staff or the passing of time does.

        Raises IllegalMove when it cannot be.
        """
        if action == "late_pay":
            self.late_pay(resource)
            return
        moves = [str(options.get("state", ""))] if action == "move" else self.moves_for(resource, action)
        if not moves:
            msg = f"{self.name} has no {action} for a {resource.kind}"
            raise IllegalMove(msg)
        for state in moves:
            self.world.move(resource, state)

    def late_pay(self, resource: Resource) -> None:
        """Money arrives after the end; IllegalMove unless the resource ended unpaid."""
        lifecycle = self.world.lifecycle(resource)
        if resource.state not in lifecycle.unpaid_ends:
            msg = f"{resource.kind} is {resource.state}, so its money would not be late"
            raise IllegalMove(msg)
        resource.has_late_money = True
        self.take_late_money(resource)

    @abstractmethod
    def take_late_money(self, resource: Resource) -> None:
        """Handle money that came late."""

    def expires(self, resource: Resource, seconds: float) -> None:
        """Let a resource that is still open expire after `seconds`.

        Seconds are of the provider's time.
        """
        real = self.config.scaled(seconds)
        resource.expires_at = resource.created_at + timedelta(seconds=real)
        self._expire(resource)

    def _expire(self, resource: Resource) -> None:
        left = (resource.expires_at - now()).total_seconds() if resource.expires_at else 0.0
        if left > 0:
            # A timer may fire a little early by the wall clock; nothing expires before its hour.
            self.stage.timers.after(left, self._expire, resource)
            return
        moves = self.moves_for(resource, "expire")
        if moves and self.world.may(resource, moves[0]):
            self.act(resource, "expire", {})

    def is_acceptable(self, url: object) -> bool:
        """Return whether the provider takes this URL."""
        return is_acceptable(url, allow_loopback_http=self.config.allow_loopback_http)

    def page_url(self, resource_id: str) -> str:
        """Return the hosted checkout page of the resource with this provider id."""
        return f"{self.config.public_url}/checkout/{self.name}/{resource_id}"


def magic_code(text: object) -> str:
    """Return the CODE of `sandbox:CODE` or `sandbox CODE`; empty for other text."""
    if isinstance(text, str) and text.startswith(("sandbox:", "sandbox ")):
        return text[8:].strip()
    return ""


def read_json(call: Call, refusal: Reply) -> dict[str, Any]:
    """Parse the body as a JSON object, fractions as Decimal.

    Raises ApiError with `refusal` for anything else.
    """
    if call.is_too_large:
        raise ApiError(refusal)
    try:
        value = json.loads(call.body, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise ApiError(refusal) from None
    try:
        plain(value)
    except (UnicodeEncodeError, RecursionError):
        # Half a surrogate pair is valid JSON, but it could never be sent back.
        raise ApiError(refusal) from None
    if not isinstance(value, dict):
        raise ApiError(refusal)
    return value


def plain(value: Any) -> Any:
    """Convert every Decimal to a float, so that JSON can be written again."""
    return json.loads(json.dumps(value, default=float, ensure_ascii=False).encode())


def whole(text: str | None, default: int, most: int) -> int:
    """Parse a page size: `default` when absent or unreadable, never above `most`."""
    return min(max(int(text), 1), most) if text and text.isascii() and text.isdigit() and len(text) < 10 else default
