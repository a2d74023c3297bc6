"""`receipted payments create`, `track`, `refresh`, `cancel` and `resolve`: what may be asked for."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from receipted.cli import output, timeline
from receipted.cli.context import AccountName, AsJson, By, Reason, command, example, opened, subcommands
from receipted.cli.extra import fields_of
from receipted.cli.lookup import find_id
from receipted.cli.payments import Id, summary
from receipted.commands import Commands
from statemachine.money import currency_code, to_minor
from storage.tables import Payment

app = subcommands("What may be asked for.")

Kind = Annotated[str | None, typer.Option("--kind", help="The lifecycle's kind, where not the provider's usual one.")]


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
def refresh(context: typer.Context, payment_id: Id, json: AsJson = False) -> None:
    """Ask the provider about a payment now, and apply the answer."""
    _run(context, lambda commands, found: commands.refresh(found), payment_id, as_json=json)


@app.command(epilog=example("receipted payments cancel 5b0c2f7e91aa"))
def cancel(context: typer.Context, payment_id: Id, json: AsJson = False) -> None:
    """Tell the provider to cancel a payment; one that was paid meanwhile is paid."""
    _run(context, lambda commands, found: commands.cancel(found), payment_id, as_json=json)


@app.command(
    epilog=example('receipted payments resolve 5b0c2f7e91aa --state paid --reason "seen in the bank" --by "Ada L."')
)
def resolve(
    context: typer.Context,
    payment_id: Id,
    state: Annotated[str, typer.Option("--state", help="The true state, in the provider's word.", show_default=False)],
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


def _run(
    context: typer.Context, do: Callable[[Commands, str], Awaitable[Payment]], part: str = "", *, as_json: bool
) -> None:
    """Do one command about the payment that `part` names, and print the payment as it is then."""
    with opened(context) as service:
        found = ""
        if part:
            with service.database.read() as unit:
                found = find_id(unit, Payment, part)
        payment = command(service, lambda commands: do(commands, found))
    if as_json:
        output.as_json(timeline.payment_data(payment))
    else:
        summary(payment)
