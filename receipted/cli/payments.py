"""`receipted payments`: show, create, track, cancel, capture, refund, resolve."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

import typer

from receipted.cli import lists, output
from receipted.cli.exits import Exit, InvalidInput, example
from receipted.cli.lists import find_id
from receipted.cli.options import (
    ID_HELP,
    AccountName,
    After,
    AsJson,
    By,
    Limit,
    Reason,
    open_service,
    parse_fields,
    parse_pairs,
    require_account,
    run_command,
    subcommands,
)
from receipted.wiring import Service
from service.blockers import REMEDIES, find_blockers
from service.commands import Commands
from service.errors import MoneyUnanswered
from service.payments import checkout_url, other_names, parts_told, said_by
from service.timeline import chronicle, details
from statemachine.money import currency_code, to_minor
from statemachine.names import MAX_NAME_CHARS, is_line
from statemachine.phases import Phase, Review
from storage import operator_actions, payment_polls, payments, rate_limits
from storage import search as storage_search
from storage import transitions as storage_transitions
from storage.database import Unit
from storage.ids import new_id
from storage.payment_history import PaymentHistory, read
from storage.search import PageCursor, RowFilter
from storage.tables import InboxMessage, Payment, PaymentPoll
from storage.types import InboxStatus

#: Columns of an inbox message that only `inbox show --body` prints: they may hold personal data.
PRIVATE_COLUMNS: Final = ("body", "headers")

app = subcommands("List, show, create, track, refresh, cancel, capture, refund and resolve payments.")
Id = Annotated[str, typer.Argument(metavar="ID", help=ID_HELP, show_default=False)]
_COLUMNS = ("ID", "Account", "Kind", "Reference", "Amount", "State", "Phase", "Review", "Changed")
_MOVES = ("No", "Recorded", "From", "To", "Via", "Phase", "Source", "Said by", "Forced", "Reason", "Hash")
Kind = Annotated[str | None, typer.Option("--kind", help="The lifecycle's kind, where not the provider's usual one.")]
OptionalBy = Annotated[
    str | None, typer.Option("--by", metavar="NAME", help="Who asks for it; kept as an action.", show_default=False)
]
OptionalReason = Annotated[str | None, typer.Option("--reason", help="Why; kept with the action.", show_default=False)]

#: By phase after a cancel: whether no money will come any more, and what to say.
_CANCEL_RESULTS: Final = {
    Phase.CANCELLED: (True, ""),
    Phase.EXPIRED: (True, "it has expired, so there is nothing left to cancel"),
    Phase.FAILED: (True, "it has ended without money"),
    Phase.AUTHORISED: (False, "it is authorised, and not captured"),
    Phase.PAID: (False, "it is paid"),
    Phase.SETTLED: (False, "it is paid and settled"),
    Phase.REFUNDED: (False, "it was paid, and is refunded"),
    Phase.OPEN: (False, "it is still open"),
    Phase.PROCESSING: (False, "the payer has done their part, and it goes on"),
}

#: Reviews in which a payment that has ended may hold money all the same.
_DOUBTFUL_REVIEWS: Final = (Review.CONFLICT, Review.UNKNOWN_STATUS)


def blocker_texts(unit: Unit, history: PaymentHistory, now: datetime, *, is_terminal: bool) -> list[str]:
    """Return what blocks the payment and why, in words, the worst first."""
    waiting = [message for message in history.messages if message.status != InboxStatus.DECIDED]
    account = history.payment.account
    found = find_blockers(
        history.payment,
        history.poll,
        history.owed,
        history.tries,
        waiting,
        rate_limits.breaker(unit, account),
        now,
        is_terminal=is_terminal,
        pause=rate_limits.pause_left(unit, account, now),
    )
    return [blocker.text for blocker in found]


def as_data(history: PaymentHistory, *, why_next_poll: str | None, in_the_way: Sequence[str] = ()) -> dict[str, Any]:
    """Return the history as JSON values by table, without bodies and headers."""
    by_outbox: dict[str, list[dict[str, Any]]] = {}
    for attempt in history.tries:
        by_outbox.setdefault(attempt.outbox_id, []).append(output.columns_of(attempt))
    return {
        "payment": {
            **payment_data(history.payment, history.poll),
            "why_next_poll": why_next_poll,
            "in_the_way": list(in_the_way),
        },
        "inbox_messages": [message_data(message) for message in history.messages],
        "transitions": [output.columns_of(transition) for transition in history.transitions],
        "outbox_messages": [
            {**output.columns_of(message, without=("payload",)), "delivery_attempts": by_outbox.get(message.id, [])}
            for message in history.owed
        ],
        "operator_actions": [output.columns_of(action) for action in history.actions],
    }


def payment_data(payment: Payment, poll: PaymentPoll) -> dict[str, Any]:
    """Return the payment's columns, the amount in major units and the checkout URL."""
    has_amount = payment.amount_minor is not None and payment.currency is not None
    amount = output.amount(payment.amount_minor, payment.currency) if has_amount else None
    return {
        **output.columns_of(payment),
        **output.columns_of(poll, without=("payment_id", "account", "seal")),
        "amount": amount.partition(" ")[0] if amount else None,
        "checkout_url": checkout_url(payment),
    }


def message_data(message: InboxMessage) -> dict[str, Any]:
    """Return the message's columns with its size in bytes, without bytes and headers.

    The size is None for a scrubbed message.
    """
    size_bytes = len(message.body) if message.scrubbed_at is None else None
    return {**output.columns_of(message, without=PRIVATE_COLUMNS), "size_bytes": size_bytes}


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
    """List payments, the newest first. The end of an ID is enough for other commands."""
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
    with open_service(context) as service:
        ids = lists.search_ids(service, storage_search.payment_ids, search)
        created, changed = (
            lists.time_range(service, since, before),
            lists.time_range(service, changed_since, changed_before),
        )
        what = RowFilter(
            equal={name: str(value) for name, value in equal.items() if value is not None},
            present={} if review is None else {"review": review},
            ids=ids,
            at_least=_without_none({"created_at": created[0], "changed_at": changed[0], "amount_minor": amounts[0]}),
            below=_without_none(
                {"created_at": created[1], "changed_at": changed[1], "amount_minor": _plus_one(amounts[1])}
            ),
        )
        with service.database.read() as unit:
            found = _find_payments(unit, what, after, limit, is_newest=not oldest)
            polls = payment_polls.of(unit, found)
        if not found:
            require_account(service, account)
    if lists.print_machine_form(
        [payment_data(payment, polls[payment.id]) for payment in found], limit, as_json=json, as_csv=csv
    ):
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
    output.print_more_hint(found, limit)


@app.command(epilog=example("receipted payments transitions 5b0c2f7e91aa"))
def transitions(context: typer.Context, payment_id: Id, json: AsJson = False) -> None:
    """Show each move of a payment in order: states, source, reason and hash."""
    with open_service(context) as service, service.database.read() as unit:
        found = storage_transitions.of_payment(unit, find_id(unit, Payment, payment_id))
    if json:
        output.as_json([output.columns_of(transition) for transition in found])
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
    """Show a payment and its timeline: messages, decisions, moves and deliveries."""
    with open_service(context) as service, service.database.read() as unit:
        history = read(unit, find_id(unit, Payment, payment_id))
        now = service.clock()
        why = service.poll_schedule.explain_next_poll(history.payment, history.poll, now)
        is_terminal = history.payment.account in service.accounts and service.poll_schedule.is_terminal(history.payment)
        blockers = blocker_texts(unit, history, now, is_terminal=is_terminal)
    if json:
        output.as_json(as_data(history, why_next_poll=why, in_the_way=blockers))
        return
    summary(history.payment, history.poll, why, said_by(history.transitions[-1]) if history.transitions else None)
    if blockers:
        output.say("")
        output.say("In the way")
        for words in blockers:
            output.say(output.shown(words))
    output.say("")
    output.say("Timeline")
    for entry in chronicle(history):
        output.say(f"{output.shown(entry.at)}  {output.shown(entry.title)}")
        for detail in details(entry):
            output.say(f"{'':22}{output.shown(detail)}")


def summary(
    payment: Payment, poll: PaymentPoll, why_next_poll: str | None = None, state_said_by: str | None = None
) -> None:
    """Print the payment as it is now, one fact a line."""
    asked_next = output.shown(poll.next_poll_at) if poll.next_poll_at is not None else None
    output.fields(
        {
            "payment": payment.id,
            "account": payment.account,
            "kind": payment.kind,
            "provider_ref": payment.provider_ref,
            "other names": ", ".join(map(str, other_names(payment))) or None,
            "reference": payment.reference,
            "description": payment.description,
            **{f"metadata {name}": value for name, value in (payment.merchant_metadata or {}).items()},
            "amount": output.amount(payment.amount_minor, payment.currency),
            "authorised": output.amount(payment.authorised_minor, payment.currency),
            "captured": output.amount(payment.captured_minor, payment.currency),
            "refunded": output.amount(payment.refunded_minor, payment.currency),
            "charged back": output.amount(payment.charged_back_minor, payment.currency),
            "disputed": output.amount(payment.disputed_minor, payment.currency),
            **{f"{kind} {name}": words for kind, name, words in parts_told(payment)},
            "state": payment.state or "none yet",
            "said by": state_said_by,
            "phase": payment.phase,
            "review": payment.review,
            "review_note": payment.review_note,
            "to do": REMEDIES[Review(payment.review)].do if payment.review else None,
            "failure_reason": payment.failure_reason,
            "checkout_url": checkout_url(payment),
            "expires_at": payment.expires_at,
            "created_at": payment.created_at,
            "changed_at": payment.changed_at,
            "heard_at": poll.heard_at,
            "asked_at": poll.asked_at,
            "polls": poll.polls or None,
            "poll_error": poll.poll_error,
            "asked next": f"{asked_next}: {why_next_poll}" if asked_next and why_next_poll else asked_next,
            **{f"fact {name}": value for name, value in payment.facts.items()},
        }
    )


def _find_payments(unit: Unit, what: RowFilter, after: str | None, limit: int, *, is_newest: bool) -> list[Payment]:
    start = find_id(unit, Payment, after) if after else None
    if is_newest:
        return storage_search.payments(unit, what, PageCursor(limit, after=start)).rows
    return storage_search.payments(unit, what, PageCursor(limit, before=start or lists.FIRST)).rows[::-1]


def _minor(amount: str | None, currency: str | None, option: str) -> int | None:
    if amount is None:
        return None
    if currency is None:
        raise InvalidInput(f"--{option} needs --currency, which says how many places an amount has", param=option)
    return to_minor(amount, currency)


def _plus_one(amount_minor: int | None) -> int | None:
    return None if amount_minor is None else amount_minor + 1


def _without_none(bounds: dict[str, Any]) -> dict[str, Any]:
    return {name: bound for name, bound in bounds.items() if bound is not None}


Description = Annotated[
    str | None, typer.Option("--description", metavar="TEXT", help="Your own words; in answers and effects.")
]
Metadata = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="KEY=VALUE", help="Your own name and value; may be repeated."),
]


@app.command(epilog=example("receipted payments track shop pi_3Nq8 --kind payment_intent"))
def track(
    context: typer.Context,
    account: AccountName,
    ref: Annotated[str, typer.Argument(metavar="REF", help="The provider's id of the payment.")],
    kind: Kind = None,
    description: Description = None,
    metadata: Metadata = None,
    json: AsJson = False,
) -> None:
    """Fetch a payment that was not created here from the provider, and track it."""
    own = parse_pairs(metadata or [], option="metadata")
    _run(
        context,
        lambda commands, _id: commands.track(account, ref, kind, description=description, metadata=own),
        as_json=json,
    )


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
    description: Description = None,
    metadata: Metadata = None,
    json: AsJson = False,
) -> None:
    """Create a payment at the provider, and show where the payer pays.

    The same reference gives the same payment.
    """
    minor, code, fields = to_minor(amount, currency), currency_code(currency), parse_fields(extra or [])
    own = parse_pairs(metadata or [], option="metadata")
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
            description=description,
            metadata=own,
        ),
        as_json=json,
    )


@app.command(epilog=example("receipted payments refresh 5b0c2f7e91aa"))
def refresh(
    context: typer.Context, payment_id: Id, by: OptionalBy = None, reason: OptionalReason = None, json: AsJson = False
) -> None:
    """Fetch a payment from the provider now, and apply the answer."""
    action = _named_action("refresh", by, reason)
    _run(context, lambda commands, found: commands.refresh(found), payment_id, action=action, as_json=json)


@app.command(epilog=example('receipted payments cancel 5b0c2f7e91aa --by "Ada L." --reason "the order was withdrawn"'))
def cancel(
    context: typer.Context, payment_id: Id, by: OptionalBy = None, reason: OptionalReason = None, json: AsJson = False
) -> None:
    """Cancel a payment at its provider, and show its state afterwards.

    The provider is asked for the state before, and after where needed. Exit code 0 says that no money will come:
    cancelled, expired or failed. Exit code 1 says that it is paid, still goes on, needs review, or that nothing is
    known yet; a repeat is harmless. With --json the payment is on stdout all the same.
    """
    action = _named_action("cancel", by, reason)
    payment = _run(context, lambda commands, found: commands.cancel(found), payment_id, action=action, as_json=json)
    is_done, words = cancel_result(payment)
    if words:
        output.note(f"{'note' if is_done else 'error'}: {words}")
    if not is_done:
        raise typer.Exit(Exit.FAILED)


Amount = Annotated[
    str | None, typer.Option("--amount", help="In major units, such as 4.50; without it, all that remains.")
]
Key = Annotated[
    str | None,
    typer.Option("--key", help="Your name of this call: a repeat with the same key moves no money twice."),
]


@app.command(epilog=example("receipted payments capture 5b0c2f7e91aa --amount 4.50 --key order-17"))
def capture(
    context: typer.Context,
    payment_id: Id,
    amount: Amount = None,
    key: Key = None,
    by: OptionalBy = None,
    reason: OptionalReason = None,
    json: AsJson = False,
) -> None:
    """Capture an authorised payment at its provider, all or part of it.

    More than is authorised and not captured yet is refused before anything is sent. Where the outcome is not known,
    repeat the command with the same key.
    """
    _move_money(context, "capture", payment_id, amount, key, _named_action("capture", by, reason), as_json=json)


@app.command(
    epilog=example(
        'receipted payments refund 5b0c2f7e91aa --amount 4.50 --key return-9 --by "Ada L." --reason "one came back"',
        "receipted payments refund 5b0c2f7e91aa",
    )
)
def refund(
    context: typer.Context,
    payment_id: Id,
    amount: Amount = None,
    key: Key = None,
    by: OptionalBy = None,
    reason: OptionalReason = None,
    json: AsJson = False,
) -> None:
    """Refund a paid payment at its provider, all or part of it.

    More than remains is refused before anything is sent. A refund may be pending at the provider for days: see the
    payment's sums. Where the outcome is not known, repeat the command with the same key.
    """
    _move_money(context, "refund", payment_id, amount, key, _named_action("refund", by, reason), as_json=json)


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
    """Set the true state as a named person with a reason; this closes any review."""
    _run(
        context,
        lambda commands, found: commands.resolve(found, state=state, reason=reason, by=by),
        payment_id,
        as_json=json,
    )


def _move_money(
    context: typer.Context,
    call: str,
    payment_id: str,
    amount: str | None,
    key: str | None,
    action: "_Action | None",
    *,
    as_json: bool,
) -> None:
    """Capture or refund under a key, which is printed where a repeat needs it."""
    used = key or new_id()

    async def move(commands: Commands, found: str) -> Payment:
        payment = await commands.get(found)
        minor = None if amount is None else to_minor(amount, payment.currency or "")
        do = commands.capture if call == "capture" else commands.refund
        try:
            return await do(found, key=used, amount_minor=minor)
        except MoneyUnanswered:
            output.note(f"note: the same once more is: receipted payments {call} {found} --key {output.shown(used)}")
            raise

    _run(context, move, payment_id, action=action, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Action:
    """Operator action to record with the name and the reason."""

    name: str
    by: str
    reason: str


def _named_action(action: str, by: str | None, reason: str | None) -> _Action | None:
    """Return the action to record; None without a name.

    Raises InvalidInput for a reason without a name.
    """
    if by is None and reason is not None:
        raise InvalidInput("a reason is kept with a name: give --by too", param="by")
    return None if by is None else _Action(action, by, reason or "asked for on the command line")


def _run(
    context: typer.Context,
    do: Callable[[Commands, str], Awaitable[Payment]],
    part: str = "",
    *,
    action: _Action | None = None,
    as_json: bool,
) -> Payment:
    """Run one command about a payment, and print the payment afterwards.

    The named action is recorded before, so that it is known whatever comes of it.
    """
    with open_service(context) as service:
        found = ""
        if part:
            with service.database.read() as unit:
                found = find_id(unit, Payment, part)
        if action is not None:
            _record_action(service, action, found)
        payment = run_command(service, lambda commands: do(commands, found))
        with service.database.read() as unit:
            poll = payment_polls.of(unit, [payment])[payment.id]
    if as_json:
        output.as_json(payment_data(payment, poll))
    else:
        summary(payment, poll)
    return payment


def _record_action(service: Service, action: _Action, payment_id: str) -> None:
    with service.database.write() as unit:
        operator_actions.note(
            unit,
            account=payments.get(unit, payment_id).account,
            at=service.clock(),
            actor=action.by,
            action=action.name,
            subject=payment_id,
            reason=action.reason,
        )


def cancel_result(payment: Payment) -> tuple[bool, str]:
    """Return whether no money will come any more, and what to print about it.

    The text is empty for a plain cancellation.
    """
    if payment.review in _DOUBTFUL_REVIEWS:
        return False, f"a person must look: {payment.review}, {output.shown(payment.review_note)}"
    is_done, words = _CANCEL_RESULTS[Phase(payment.phase)]
    if not is_done:
        return False, f"not cancelled: {words} (state {output.shown(payment.state)})"
    reason = f", {output.shown(payment.failure_reason)}" if payment.failure_reason else ""
    return True, f"{words} (state {output.shown(payment.state)}{reason})" if words else ""
