"""`receipted payments list` and `show`: what is known of payments."""

from typing import Annotated, Any

import typer

from receipted.cli import lists, output, timeline
from receipted.cli.context import ID_HELP, After, AsJson, Limit, known_account, opened, subcommands
from receipted.cli.exits import InvalidInput, example
from receipted.cli.lookup import find_id
from receipted.wiring import Service
from statemachine.money import currency_code, to_minor
from statemachine.names import MAX_NAME_CHARS, is_line
from statemachine.phases import Phase, Review
from storage import listing
from storage import search as storage_search
from storage import transitions as storage_transitions
from storage.listing import Place, Wanted
from storage.obstacles import REMEDIES
from storage.tables import Payment
from storage.telling import said_by

app = subcommands("What is known of payments, and what may be asked for.")

Id = Annotated[str, typer.Argument(metavar="ID", help=ID_HELP, show_default=False)]

_COLUMNS = ("ID", "Account", "Kind", "Reference", "Amount", "State", "Phase", "Review", "Changed")
_MOVES = ("No", "Recorded", "From", "To", "Via", "Phase", "Source", "Said by", "Forced", "Reason", "Hash")


@app.command("list", epilog=example("receipted payments list --account shop --phase paid --limit 20"))
def list_(
    context: typer.Context,
    account: Annotated[str | None, typer.Option("--account", help="Only this account's.")] = None,
    phase: Annotated[Phase | None, typer.Option("--phase", help="Only in this phase.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="Only in this state, as the provider names it.")] = None,
    reference: Annotated[str | None, typer.Option("--reference", help="Only with this reference of yours.")] = None,
    review: Annotated[
        bool | None,
        typer.Option("--review/--no-review", help="Only those that need review, or that do not.", show_default=False),
    ] = None,
    why: Annotated[Review | None, typer.Option("--why", help="Only those that need review for this.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only of this kind.")] = None,
    provider_ref: Annotated[
        str | None, typer.Option("--provider-ref", help="Only with this id of the provider.")
    ] = None,
    currency: Annotated[str | None, typer.Option("--currency", help="Only in this currency.")] = None,
    amount_from: Annotated[
        str | None, typer.Option("--amount-from", help="Of at least so much, such as 10.00; with --currency.")
    ] = None,
    amount_to: Annotated[
        str | None, typer.Option("--amount-to", help="Of at most so much, such as 10.00; with --currency.")
    ] = None,
    search: lists.Search = None,
    since: lists.Since = None,
    before: lists.Before = None,
    changed_since: Annotated[
        str | None, typer.Option("--changed-since", metavar="WHEN", help="Changed from when on: 2d, 2026-11-01.")
    ] = None,
    changed_before: Annotated[
        str | None, typer.Option("--changed-before", metavar="WHEN", help="Changed before when: 2d, 2026-11-01.")
    ] = None,
    oldest: lists.Oldest = False,
    limit: Limit = 50,
    after: After = None,
    csv: lists.AsCsv = False,
    json: AsJson = False,
) -> None:
    """List payments, the newest first. An ID in the table is the end of the whole one, and does for it."""
    equal = {
        "account": account,
        "phase": phase,
        "state": state,
        "reference": reference,
        "review": why,
        "kind": kind,
        "provider_ref": provider_ref,
        "currency": None if currency is None else currency_code(currency),
    }
    for name, value in equal.items():
        if value is not None and not is_line(str(value), MAX_NAME_CHARS):
            raise InvalidInput(
                f"--{name.replace('_', '-')} is one line of at most {MAX_NAME_CHARS} characters", param=name
            )
    amounts = (_minor(amount_from, currency, "amount-from"), _minor(amount_to, currency, "amount-to"))
    with opened(context) as service:
        ids = lists.named(service, storage_search.payment_ids, search)
        created, changed = lists.moments(service, since, before), lists.moments(service, changed_since, changed_before)
        what = Wanted(
            {name: [str(value)] for name, value in equal.items() if value is not None}
            | ({} if ids is None else {"id": ids}),
            _given({"created_at": created[0], "changed_at": changed[0], "amount_minor": amounts[0]}),
            _given({"created_at": created[1], "changed_at": changed[1], "amount_minor": _beyond(amounts[1])}),
            {} if review is None else {"review": review},
        )
        found = _listed(service, what, after, limit, is_newest=not oldest)
        if not found:
            known_account(service, account)
    if lists.told([timeline.payment_data(payment) for payment in found], limit, as_json=json, as_csv=csv):
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
    output.more(found, limit)


@app.command(epilog=example("receipted payments transitions 5b0c2f7e91aa"))
def transitions(context: typer.Context, payment_id: Id, json: AsJson = False) -> None:
    """Show each move of a payment in order: from where to where, who said so and why, and its hash."""
    with opened(context) as service, service.database.read() as unit:
        found = storage_transitions.of_payment(unit, find_id(unit, Payment, payment_id))
    if json:
        output.as_json([output.row_of(transition) for transition in found])
        return
    output.table(
        _MOVES,
        (
            (
                *(
                    move.number,
                    move.recorded_at,
                    move.from_state or "new",
                    move.to_state,
                    ", ".join(move.via),
                    move.phase,
                ),
                *(move.source, said_by(move), "yes" if move.forced else None, move.reason, move.hash),
            )
            for move in found
        ),
    )


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
    summary(story.payment, why, said_by(story.transitions[-1]) if story.transitions else None)
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


def summary(payment: Payment, why_next_poll: str | None = None, state_said_by: str | None = None) -> None:
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
            "said by": state_said_by,
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


def _listed(service: Service, what: Wanted, after: str | None, limit: int, *, is_newest: bool) -> list[Payment]:
    with service.database.read() as unit:
        start = find_id(unit, Payment, after) if after else None
        if is_newest:
            return listing.payments(unit, what, Place(limit, after=start)).rows
        return listing.payments(unit, what, Place(limit, before=start or lists.FIRST)).rows[::-1]


def _minor(amount: str | None, currency: str | None, option: str) -> int | None:
    if amount is None:
        return None
    if currency is None:
        raise InvalidInput(f"--{option} needs --currency, which says how many places an amount has", param=option)
    return to_minor(amount, currency)


def _beyond(amount_minor: int | None) -> int | None:
    return None if amount_minor is None else amount_minor + 1


def _given(bounds: dict[str, Any]) -> dict[str, Any]:
    return {name: bound for name, bound in bounds.items() if bound is not None}
