"""The terminal can do what the API and the console can: whoever adds to one of them is told what is missing here."""

from types import SimpleNamespace

import pytest
import typer

from api.application import operations
from console.tables import definitions
from console.tables.base import ConsoleTable
from receipted.cli.main import app

_ROOT = typer.main.get_command(app)

TABLES = (
    *(
        definitions.PaymentsTable,
        definitions.AuditHeadsTable,
        definitions.ReconciliationsTable,
        definitions.ActionsTable,
    ),
    *(definitions.InboxTable, definitions.OutboxTable, definitions.QuarantineTable),
)

#: The command for each operation of the API.
COMMANDS = {
    "list_payments": "payments list",
    "create_payment": "payments create",
    "track_payment": "payments track",
    "get_payment": "payments show",
    "list_transitions": "payments transitions",
    "get_timeline": "payments show",
    "refresh_payment": "payments refresh",
    "cancel_payment": "payments cancel",
    "resolve_payment": "payments resolve",
    "capture_payment": "payments capture",
    "refund_payment": "payments refund",
    "prove_payment": "audit verify",
    "export_payment": "audit export",
    "list_events": "events",
    "list_inbox": "inbox list",
    "get_inbox_message": "inbox show",
    "get_inbox_body": "inbox show",
    "replay_inbox_message": "inbox replay",
    "list_outbox": "outbox list",
    "get_outbox_message": "outbox show",
    "redrive_outbox": "outbox redrive",
    "redrive_outbox_message": "outbox redrive",
    "list_rejected": "rejected list",
    "get_rejected": "rejected show",
    "list_accounts": "accounts",
    "get_account": "accounts",
    "list_lifecycles": "lifecycles",
    "get_push_quality": "push-quality",
    "list_reconciliations": "reconciliations list",
    "get_reconciliation": "reconciliations show",
    "list_actions": "actions",
    "list_keys": "keys list",
    "add_key": "keys add",
    "rotate_key": "keys rotate",
    "revoke_key": "keys revoke",
}

#: Filters that are called otherwise in a terminal.
OTHERWISE = {
    "in_review": "review",
    "created_from": "since",
    "created_before": "before",
    "changed_from": "changed_since",
    "type": "effect",
    "days": "since",
    "actor": "by",
    "subject": "about",
}

#: The command that lists what a table of the console lists, and the one that does what may be done about its rows.
LISTS = {
    "payments": ("payments list", None),
    "inbox": ("inbox list", "inbox replay"),
    "outbox": ("outbox list", "outbox redrive"),
    "quarantine": ("rejected list", "rejected redeem"),
    "reconciliations": ("reconciliations list", None),
    "actions": ("actions", None),
    "audit": ("audit heads", None),
}


def options_of(path):
    """The names of what a command takes."""
    command = _ROOT
    for word in path.split():
        command = command.commands[word]
    return {param.name for param in command.params}


def test_every_operation_of_the_api_has_its_command():
    """And none is named here that the API has no more."""
    assert set(COMMANDS) == {operation.operation_id for operation in operations()}


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.operation_id)
def test_a_command_goes_by_whatever_the_api_goes_by(operation):
    """Each filter of a query is an option."""
    taken = options_of(COMMANDS[operation.operation_id])
    asked = set(operation.query_model.model_fields) if operation.query_model is not None else set()

    assert {OTHERWISE.get(name, name) for name in asked - {"cursor", "before", "after"}} <= taken


def test_every_table_of_the_console_is_a_list_here():
    """And none is named here that the console has no more."""
    assert set(LISTS) == {table.key for table in TABLES}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.key)
def test_a_list_goes_by_whatever_the_console_goes_by(table):
    """Its filters, its range of time, its search, the other end first, and CSV; and what is done about its rows."""
    made = object.__new__(table)
    listing, doing = LISTS[table.key]
    taken = options_of(listing)

    filters = made.filter_fields(SimpleNamespace(accounts={}))
    assert {OTHERWISE.get(each.name, each.name) for each in filters} <= taken
    assert {"since", "before", "csv"} <= taken
    assert {"newest", "oldest"} & taken
    assert table.search is ConsoleTable.search or {"search", "about"} & taken
    assert (made.bulk_action() is not None) == (doing is not None)
    assert doing is None or {"reason", "by"} <= options_of(doing)
