"""Actions of operators on one payment, message, effect or rejected delivery.

Actions on several rows at once are in tables/bulk_actions.py.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import ImmutableMultiDict
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from console.access import Person
from console.browser_security import local_path
from console.deps import ConsoleDeps
from console.errors import InvalidForm
from console.pages import PageRenderer
from service.commands import Commands
from statemachine.money import amount_text, to_minor
from statemachine.phases import Phase
from storage import operator_actions, payments
from storage.tables import Payment
from storage.types import InboxStatus

#: The commands' own limit.
_MAX_REASON_CHARS: Final = 2000


@dataclass(frozen=True, slots=True)
class ActionRequest:
    """Form of a person who has the permission for the action."""

    deps: ConsoleDeps
    request: Request
    person: Person
    form: ImmutableMultiDict[str, str]
    reason: str  #: empty where none was asked for and none given

    @property
    def commands(self) -> Commands:
        """Commands of the running application."""
        return self.deps.commands()

    @property
    def by(self) -> str:
        """Name of the person, as recorded with the action."""
        return self.person.name

    def path(self, name: str) -> str:
        """Return a parameter of the path."""
        return str(self.request.path_params[name])

    def field(self, name: str) -> str:
        """Return a required field; raises InvalidForm where it is empty."""
        value = self.form.get(name, "").strip()
        if not value:
            raise InvalidForm(f"{name} is missing", param=name)
        return value


@dataclass(frozen=True, slots=True)
class ActionResult:
    """Result of an action: the words for the next page, and its address.

    Without `to` it is the page that the form names as `back`.
    """

    words: str
    tone: str = "ok"  #: ok, warn or bad
    to: str | None = None


ActionHandler = Callable[[ActionRequest], Awaitable[ActionResult]]
Endpoint = Callable[[Request], Awaitable[Response]]


def parse_reason(form: ImmutableMultiDict[str, str], *, is_needed: bool) -> str:
    """Parse the reason; raises InvalidForm where it is missing or too long."""
    reason = form.get("reason", "").replace("\r\n", "\n").strip()
    if is_needed and not reason:
        raise InvalidForm("say why: the reason is kept with what is done", param="reason")
    if len(reason) > _MAX_REASON_CHARS or "\0" in reason:
        raise InvalidForm(f"a reason has at most {_MAX_REASON_CHARS} characters", param="reason")
    return reason


def action_endpoint(
    deps: ConsoleDeps,
    pages: PageRenderer,
    does: ActionHandler,
    *,
    needs_reason: bool = False,
    back: str = "/console/",
) -> Endpoint:
    """Make an endpoint for POST that acts, and redirects with the result's words.

    Session, origin, the form's token and the permission are checked before (console/application.py). A ServiceError
    becomes a page in words, with its status; what was recorded until then is recorded.
    """

    async def endpoint(request: Request) -> Response:
        person: Person = request.state.person
        form: ImmutableMultiDict[str, str] = request.state.form
        act = ActionRequest(deps, request, person, form, parse_reason(form, is_needed=needs_reason))
        done = await does(act)
        return pages.go(done.to or local_path(form.get("back", back), back), done.words, done.tone)

    return endpoint


#: What a payment must be for its cancelling to have been what was wished for.
_ENDED: Final = frozenset({Phase.CANCELLED.value, Phase.EXPIRED.value, Phase.FAILED.value})
_MONEY: Final = frozenset({Phase.PAID.value, Phase.SETTLED.value, Phase.REFUNDED.value})


def routes(deps: ConsoleDeps, pages: PageRenderer) -> list[BaseRoute]:
    """Return one route for each action; all are POST."""
    return [
        Route("/console/payments/{id}/refresh", action_endpoint(deps, pages, refresh), methods=["POST"]),
        Route(
            "/console/payments/{id}/cancel", action_endpoint(deps, pages, cancel, needs_reason=True), methods=["POST"]
        ),
        Route(
            "/console/payments/{id}/capture", action_endpoint(deps, pages, capture, needs_reason=True), methods=["POST"]
        ),
        Route(
            "/console/payments/{id}/refund", action_endpoint(deps, pages, refund, needs_reason=True), methods=["POST"]
        ),
        Route(
            "/console/payments/{id}/resolve",
            action_endpoint(deps, pages, resolve, needs_reason=True),
            methods=["POST"],
        ),
        Route("/console/inbox/{id}/replay", action_endpoint(deps, pages, replay, needs_reason=True), methods=["POST"]),
        Route(
            "/console/outbox/{id}/redrive", action_endpoint(deps, pages, redrive, needs_reason=True), methods=["POST"]
        ),
        Route(
            "/console/quarantine/{id}/redeem",
            action_endpoint(deps, pages, redeem, needs_reason=True),
            methods=["POST"],
        ),
    ]


async def refresh(act: ActionRequest) -> ActionResult:
    """Ask the provider for the payment's state now."""
    before = await _noted(act, "refresh", act.reason or "asked for in the console")
    after = await act.commands.refresh(before.id)
    if after.version != before.version:
        return ActionResult(f"The provider was asked: the payment is {_state(after)} now.", to=_page(after.id))
    return ActionResult(f"The provider was asked: the payment is {_state(after)}, as it was known.", to=_page(after.id))


async def cancel(act: ActionRequest) -> ActionResult:
    """Cancel the payment at the provider, and apply its answer."""
    before = await _noted(act, "cancel", act.reason)
    after = await act.commands.cancel(before.id)
    if after.phase in _ENDED:
        return ActionResult(f"No money will come: the payment is {_state(after)}.", to=_page(after.id))
    if after.phase in _MONEY:
        return ActionResult(f"It was paid first: the payment is {_state(after)}.", "warn", to=_page(after.id))
    return ActionResult(
        f"It is not cancelled: the provider was asked, and it is {_state(after)}.", "warn", to=_page(after.id)
    )


async def capture(act: ActionRequest) -> ActionResult:
    """Capture what the form says, once for each form that was shown."""
    return await _move_money(act, "capture", act.commands.capture)


async def refund(act: ActionRequest) -> ActionResult:
    """Refund what the form says, once for each form that was shown."""
    return await _move_money(act, "refund", act.commands.refund)


async def _move_money(act: ActionRequest, call: str, do: Callable[..., Awaitable[Payment]]) -> ActionResult:
    before = await _noted(act, call, act.reason)
    written = act.form.get("amount", "").strip()
    amount_minor = to_minor(written, before.currency or "") if written else None
    after = await do(before.id, key=act.field("key"), amount_minor=amount_minor)
    sums = [
        f"{amount_text(minor, after.currency)} {word}"
        for minor, word in ((after.captured_minor, "captured"), (after.refunded_minor, "refunded"))
        if minor is not None
    ]
    known = ", ".join(sums) if sums else "it has told no sum yet"
    return ActionResult(f"The provider has taken the {call}. By its word: {known}.", to=_page(after.id))


async def resolve(act: ActionRequest) -> ActionResult:
    """Record and apply the person's statement of the payment's true state."""
    payment = await act.commands.resolve(act.path("id"), state=act.field("state"), reason=act.reason, by=act.by)
    if payment.review is not None:
        words = f"Your word is recorded, and the payment needs review again: {payment.review}."
        return ActionResult(words, "warn", to=_page(payment.id))
    return ActionResult(f"Your word is recorded: the payment is {_state(payment)}.", to=_page(payment.id))


async def replay(act: ActionRequest) -> ActionResult:
    """Apply the message once more."""
    message = await act.commands.replay(act.path("id"), reason=act.reason, by=act.by)
    if message.status == InboxStatus.DECIDED.value:
        return ActionResult(f"Applied once more: {message.decision}, {message.reason}.")
    return ActionResult(f"Applied once more, and it is {message.status}: {message.reason or message.decision}.", "warn")


async def redrive(act: ActionRequest) -> ActionResult:
    """Make the dead effect due again."""
    overtaken = act.form.get("overtaken") == "1"
    owed = await act.commands.redrive(act.path("id"), reason=act.reason, by=act.by, overtaken=overtaken)
    return ActionResult(f"{owed.effect} is due again and will be delivered to {owed.sink}.")


async def redeem(act: ActionRequest) -> ActionResult:
    """Verify the rejected delivery again, and move it to the inbox."""
    rejected_id, reason, by = act.path("id"), act.reason, act.by
    message_id = await act.deps.in_thread(lambda: act.deps.redeemer.redeem(rejected_id, reason=reason, by=by))
    return ActionResult(f"It is authentic now, and in the inbox as {message_id}.", to="/console/tables/quarantine/list")


async def _noted(act: ActionRequest, action: str, reason: str) -> Payment:
    """Record who asks for the action and why, and return the payment; raises NotFound."""
    payment_id = act.path("id")
    found = await act.deps.read(lambda unit: payments.get(unit, payment_id))
    now = act.deps.clock()
    await act.deps.write(
        lambda unit: operator_actions.note(
            unit, account=found.account, at=now, actor=act.by, action=action, subject=found.id, reason=reason
        )
    )
    return found


def _state(payment: Payment) -> str:
    return payment.state or "in no state yet"


def _page(payment_id: str) -> str:
    return f"/console/payments/{payment_id}"
