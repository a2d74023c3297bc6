"""`receipted actions`: actions of named people and keys, with their reasons."""

from typing import Annotated

import typer

from receipted.cli import lists, output
from receipted.cli.lists import find_id
from receipted.cli.options import After, AsJson, Limit, open_service, require_account
from receipted.wiring import Service
from storage import search
from storage.errors import NotFound
from storage.ids import is_id
from storage.tables import InboxMessage, OperatorAction, OutboxMessage, Payment

_COLUMNS = ("ID", "When", "Who", "What", "Account", "About", "Why")


def actions(
    context: typer.Context,
    account: Annotated[str | None, typer.Option("--account", help="Only about this account's.")] = None,
    by: Annotated[str | None, typer.Option("--by", metavar="NAME", help="Only by this person or key.")] = None,
    action: Annotated[str | None, typer.Option("--action", help="Only this, such as resolve or redrive.")] = None,
    about: Annotated[
        str | None,
        typer.Option("--about", metavar="ID", help="Only about this payment, message, effect, key or person."),
    ] = None,
    since: lists.Since = None,
    before: lists.Before = None,
    oldest: lists.Oldest = False,
    limit: Limit = 50,
    after: After = None,
    csv: lists.AsCsv = False,
    json: AsJson = False,
) -> None:
    """List the actions of named people and keys with their reasons, the newest first.

    The database refuses to change or remove it.
    """
    with open_service(context) as service:
        ids = None if about is None else _about(service, about)
        what = lists.filters(
            {"account": account, "actor": by, "action": action}, lists.time_range(service, since, before), ids=ids
        )
        found = lists.find_rows(
            service, OperatorAction, search.ACTIONS, what, after=after, limit=limit, is_newest=not oldest
        )
        if not found:
            require_account(service, account)
    if lists.print_machine_form([output.columns_of(done) for done in found], limit, as_json=json, as_csv=csv):
        return
    output.table(
        _COLUMNS,
        (
            (
                *(output.short(done.id), done.at, done.actor, done.action, done.account),
                *(output.short(done.subject) if is_id(done.subject) else done.subject, done.reason),
            )
            for done in found
        ),
    )
    output.print_more_hint(found, limit)


def _about(service: Service, text: str) -> list[str]:
    """Return the ids of actions about an id.

    A whole id of anything, or a part of a payment's, message's or effect's.
    """
    with service.database.read() as unit:
        if not is_id(text.strip()):
            for model in (Payment, InboxMessage, OutboxMessage):
                try:
                    text = find_id(unit, model, text)
                    break
                except NotFound:
                    continue  # it may be one of the next
            else:
                raise NotFound(f"no payment, message or effect {text}", param="about")
        return search.action_ids(unit, text.strip().lower())
