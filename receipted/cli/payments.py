"""`receipted payments list` and `show`: what is known of payments."""

from typing import Annotated

import typer

from receipted.cli import output, timeline
from receipted.cli.context import ID_HELP, After, AsJson, Limit, example, known_account, opened, subcommands
from receipted.cli.lookup import find_id
from statemachine.phases import Phase, Review
from storage import payments
from storage.obstacles import REMEDIES
from storage.tables import Payment

app = subcommands("What is known of payments, and what may be asked for.")

Id = Annotated[str, typer.Argument(metavar="ID", help=ID_HELP, show_default=False)]

_COLUMNS = ("ID", "Account", "Kind", "Reference", "Amount", "State", "Phase", "Review", "Changed")


@app.command("list", epilog=example("receipted payments list --account shop --phase paid --limit 20"))
def list_(
    context: typer.Context,
    account: Annotated[str | None, typer.Option("--account", help="Only this account's.")] = None,
    phase: Annotated[Phase | None, typer.Option("--phase", help="Only in this phase.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="Only in this state, in the provider's word.")] = None,
    reference: Annotated[str | None, typer.Option("--reference", help="Only with this reference of yours.")] = None,
    review: Annotated[bool, typer.Option("--review", help="Only those that need review.")] = False,
    limit: Limit = 50,
    after: After = None,
    json: AsJson = False,
) -> None:
    """List payments, oldest first. An ID in the table is the end of the whole one, and does for it."""
    with opened(context) as service, service.database.read() as unit:
        found = payments.find(
            unit,
            account=account,
            phase=phase.value if phase else None,
            state=state,
            reference=reference,
            in_review=review,
            after=find_id(unit, Payment, after) if after else "",
            limit=limit,
        )
        if not found:
            known_account(service, account)
    if json:
        output.as_json([timeline.payment_data(payment) for payment in found])
        return
    output.table(
        _COLUMNS,
        (
            (
                output.short(payment.id),
                payment.account,
                payment.kind,
                payment.reference,
                output.amount(payment.amount_minor, payment.currency),
                payment.state,
                payment.phase,
                payment.review,
                payment.changed_at,
            )
            for payment in found
        ),
    )
    output.more(found, limit, "receipted payments list")


@app.command(epilog=example("receipted payments show 5b0c2f7e91aa"))
def show(context: typer.Context, payment_id: Id, json: AsJson = False) -> None:
    """Show a payment and its timeline: what came, from where, what was decided and why, what was sent."""
    with opened(context) as service, service.database.read() as unit:
        story = timeline.read(unit, find_id(unit, Payment, payment_id))
        now = service.clock()
        why = service.book.why(story.payment, now)
        is_terminal = story.payment.account in service.accounts and service.book.is_terminal(story.payment)
        in_the_way = timeline.in_the_way(unit, story, now, is_terminal=is_terminal)
    if json:
        output.as_json(timeline.as_data(story, why_next_poll=why, in_the_way=in_the_way))
        return
    summary(story.payment, why)
    if in_the_way:
        output.say("")
        output.say("In the way")
        for words in in_the_way:
            output.say(output.shown(words))
    output.say("")
    output.say("Timeline")
    for entry in timeline.entries(story):
        output.say(f"{output.shown(entry.at)}  {output.shown(entry.text)}")
        for detail in entry.details:
            output.say(f"{'':22}{output.shown(detail)}")


def summary(payment: Payment, why_next_poll: str | None = None) -> None:
    """The payment as it is now, one fact a line."""
    asked_next = output.shown(payment.next_poll_at) if payment.next_poll_at is not None else None
    output.fields(
        {
            "payment": payment.id,
            "account": payment.account,
            "kind": payment.kind,
            "provider_ref": payment.provider_ref,
            "reference": payment.reference,
            "amount": output.amount(payment.amount_minor, payment.currency),
            "captured": output.amount(payment.captured_minor, payment.currency),
            "refunded": output.amount(payment.refunded_minor, payment.currency),
            "state": payment.state or "none yet",
            "phase": payment.phase,
            "review": payment.review,
            "review_note": payment.review_note,
            "to do": REMEDIES[Review(payment.review)].do if payment.review else None,
            "failure_reason": payment.failure_reason,
            "checkout_url": timeline.checkout_url(payment),
            "expires_at": payment.expires_at,
            "created_at": payment.created_at,
            "changed_at": payment.changed_at,
            "heard_at": payment.heard_at,
            "asked_at": payment.asked_at,
            "polls": payment.polls or None,
            "poll_error": payment.poll_error,
            "asked next": f"{asked_next}: {why_next_poll}" if asked_next and why_next_poll else asked_next,
            **{f"fact {name}": value for name, value in payment.facts.items()},
        }
    )
