"""`receipted payments create`, `track`, `refresh`, `cancel` and `resolve`: what may be asked for."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from receipted.cli import output, timeline
from receipted.cli.context import AccountName, AsJson, By, Reason, command, opened, subcommands
from receipted.cli.exits import Exit, InvalidInput, example
from receipted.cli.extra import fields_of
from receipted.cli.lookup import find_id
from receipted.cli.payments import Id, summary
from receipted.commands import Commands
from receipted.wiring import Service
from statemachine.money import currency_code, to_minor
from statemachine.phases import Phase, Review
from storage import operator_actions, payments
from storage.tables import Payment

app = subcommands("What may be asked for.")

Kind = Annotated[str | None, typer.Option("--kind", help="The lifecycle's kind, where not the provider's usual one.")]

MayBy = Annotated[
    str | None, typer.Option("--by", metavar="NAME", help="Who asks for it; kept as an action.", show_default=False)
]
MayReason = Annotated[str | None, typer.Option("--reason", help="Why; kept with the action.", show_default=False)]

#: By phase after a cancel: whether no money will come any more, and what to say.
_AFTER_CANCELLING: Final = {
    Phase.CANCELLED: (True, ""),
    Phase.EXPIRED: (True, "it has expired, so there is nothing left to cancel"),
    Phase.FAILED: (True, "it has ended without money"),
    Phase.PAID: (False, "it is paid"),
    Phase.SETTLED: (False, "it is paid and settled"),
    Phase.REFUNDED: (False, "it was paid, and is refunded"),
    Phase.OPEN: (False, "it is still open"),
    Phase.PROCESSING: (False, "the payer has done their part, and it goes on"),
}

#: Reviews in which a payment that has ended may hold money all the same.
_IN_DOUBT: Final = (Review.CONFLICT, Review.UNKNOWN_STATUS)


@app.command(epilog=example("receipted payments track shop pi_3Nq8 --kind payment_intent"))
def track(
    context: typer.Context,
    account: AccountName,
    ref: Annotated[str, typer.Argument(metavar="REF", help="The provider's id of the payment.")],
    kind: Kind = None,
    json: AsJson = False,
) -> None:
    """Ask the provider about a payment that was not created here, and keep track of it from now on."""
    _run(context, lambda commands, _id: commands.track(account, ref, kind), as_json=json)


@app.command(
    epilog=example(
        "receipted payments create shop --amount 10.00 --currency USD --reference order-17",
        "receipted payments create bdt --amount 500 --currency BDT --reference order-18 "
        "--extra merchant_user_id=17 --extra merchant_user_ip=192.0.2.1",
    )
)
def create(
    context: typer.Context,
    account: AccountName,
    amount: Annotated[str, typer.Option("--amount", help="In major units, such as 10.00.", show_default=False)],
    currency: Annotated[str, typer.Option("--currency", help="ISO 4217, such as USD.", show_default=False)],
    reference: Annotated[
        str, typer.Option("--reference", help="Your own id; a repeat creates nothing.", show_default=False)
    ],
    kind: Kind = None,
    return_url: Annotated[
        str | None, typer.Option("--return-url", metavar="URL", help="Your page for the returning payer.")
    ] = None,
    extra: Annotated[
        list[str] | None,
        typer.Option("--extra", metavar="JSON|KEY=VALUE", help="Further fields of the provider's; may be repeated."),
    ] = None,
    json: AsJson = False,
) -> None:
    """Create a payment at the provider, and show where the payer pays. The same reference gives the same payment."""
    minor, code, fields = to_minor(amount, currency), currency_code(currency), fields_of(extra or [])
    _run(
        context,
        lambda commands, _id: commands.create(
            account,
            amount_minor=minor,
            currency=code,
            reference=reference,
            kind=kind,
            return_url=return_url,
            extra=fields,
        ),
        as_json=json,
    )


@app.command(epilog=example("receipted payments refresh 5b0c2f7e91aa"))
def refresh(
    context: typer.Context, payment_id: Id, by: MayBy = None, reason: MayReason = None, json: AsJson = False
) -> None:
    """Ask the provider about a payment now, and apply the answer."""
    noted = _noted("refresh", by, reason)
    _run(context, lambda commands, found: commands.refresh(found), payment_id, noted=noted, as_json=json)


@app.command(epilog=example('receipted payments cancel 5b0c2f7e91aa --by "Ada L." --reason "the order was withdrawn"'))
def cancel(
    context: typer.Context, payment_id: Id, by: MayBy = None, reason: MayReason = None, json: AsJson = False
) -> None:
    """Cancel a payment at its provider, and show what it is then: the provider is asked before, and after where needed.

    Exit code 0 says that no money will come: cancelled, expired or failed. Exit code 1 says that it is paid, still goes
    on, needs review, or that nobody knows yet; a repeat is harmless. With --json the payment is on stdout all the same.
    """
    noted = _noted("cancel", by, reason)
    payment = _run(context, lambda commands, found: commands.cancel(found), payment_id, noted=noted, as_json=json)
    is_done, words = after_cancelling(payment)
    if words:
        output.note(f"{'note' if is_done else 'error'}: {words}")
    if not is_done:
        raise typer.Exit(Exit.FAILED)


@app.command(
    epilog=example('receipted payments resolve 5b0c2f7e91aa --state paid --reason "seen in the bank" --by "Ada L."')
)
def resolve(
    context: typer.Context,
    payment_id: Id,
    state: Annotated[
        str, typer.Option("--state", help="The true state, as the provider names it.", show_default=False)
    ],
    reason: Reason,
    by: By,
    json: AsJson = False,
) -> None:
    """Say which state is true, as a named person with a reason; any review is closed."""
    _run(
        context,
        lambda commands, found: commands.resolve(found, state=state, reason=reason, by=by),
        payment_id,
        as_json=json,
    )


@dataclass(frozen=True, slots=True)
class _Noted:
    """What is kept of whoever asks for something."""

    action: str
    by: str
    reason: str


def _noted(action: str, by: str | None, reason: str | None) -> _Noted | None:
    """None where nobody is named; raises InvalidInput for a reason of nobody's."""
    if by is None and reason is not None:
        raise InvalidInput("a reason is kept with a name: give --by too", param="by")
    return None if by is None else _Noted(action, by, reason or "asked for on the command line")


def _run(
    context: typer.Context,
    do: Callable[[Commands, str], Awaitable[Payment]],
    part: str = "",
    *,
    noted: _Noted | None = None,
    as_json: bool,
) -> Payment:
    """Do one command about the payment that `part` names, and print the payment as it is then.

    Who asked for it is kept before it is done, so that it is known whatever comes of it.
    """
    with opened(context) as service:
        found = ""
        if part:
            with service.database.read() as unit:
                found = find_id(unit, Payment, part)
        if noted is not None:
            _keep(service, noted, found)
        payment = command(service, lambda commands: do(commands, found))
    if as_json:
        output.as_json(timeline.payment_data(payment))
    else:
        summary(payment)
    return payment


def _keep(service: Service, noted: _Noted, payment_id: str) -> None:
    with service.database.write() as unit:
        operator_actions.note(
            unit,
            account=payments.get(unit, payment_id).account,
            at=service.clock(),
            actor=noted.by,
            action=noted.action,
            subject=payment_id,
            reason=noted.reason,
        )


def after_cancelling(payment: Payment) -> tuple[bool, str]:
    """Whether no money will come any more, and what to say about that; of a plain cancellation nothing."""
    if payment.review in _IN_DOUBT:
        return False, f"a person must look: {payment.review}, {output.shown(payment.review_note)}"
    is_done, words = _AFTER_CANCELLING[Phase(payment.phase)]
    if not is_done:
        return False, f"not cancelled: {words} (state {output.shown(payment.state)})"
    reason = f", {output.shown(payment.failure_reason)}" if payment.failure_reason else ""
    return True, f"{words} (state {output.shown(payment.state)}{reason})" if words else ""
