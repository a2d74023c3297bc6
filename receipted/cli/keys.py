"""`receipted keys`: add, list, rotate and revoke keys of the API."""

from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer

from api.credentials import Environment, new_key, rotated_key
from receipted.cli import output
from receipted.cli.exits import InvalidInput, example
from receipted.cli.lists import find_id
from receipted.cli.options import AsJson, By, open_service, parse_duration, subcommands
from service.permissions import KeyScope
from storage import api_keys, operator_actions
from storage.tables_support import ApiKey

app = subcommands("Manage the API keys of your programs.")

Id = Annotated[
    str,
    typer.Argument(metavar="ID", help="The id, or at least 8 characters of its beginning or end.", show_default=False),
]

_COLUMNS: Final = ("ID", "Name", "Key", "Environment", "Scopes", "Created", "Last used", "Ends", "Status")


@dataclass(frozen=True, slots=True)
class _NewKey:
    key: ApiKey
    text: str


@app.command(epilog=example('receipted keys add shop --test --scope read --scope write --by "Ada L."'))
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who will call with it.", show_default=False)],
    by: By,
    scope: Annotated[
        list[KeyScope], typer.Option("--scope", help="What it may do; may be repeated. None implies another.")
    ],
    live: Annotated[
        bool | None, typer.Option("--live/--test", help="Which accounts it reaches.", show_default=False)
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="SPAN", help="When it ends by itself: 90d, 12h.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Add a key and print it; it is shown only now and stored nowhere."""
    if live is None:
        raise InvalidInput("say which accounts it reaches: --live or --test", param="live")
    if not 0 < len(name) <= 64 or not name.isprintable():
        raise InvalidInput("a name has 1 to 64 printable characters", param="name")
    environment = Environment.LIVE if live else Environment.TEST
    with open_service(context) as service:
        now = service.clock()
        ends = None if expires is None else now + parse_duration(expires, option="expires")
        key, text = new_key(name, environment, scope, now, expires_at=ends)
        with service.database.write() as unit:
            api_keys.add(unit, key)
            _note(unit, now, by, "add key", key.id, f"scopes {', '.join(key.scopes)}")
    _show(_NewKey(key, text), as_json=json)


@app.command("list", epilog=example("receipted keys list"))
def list_(context: typer.Context, json: AsJson = False) -> None:
    """List all keys, the newest first, without their secrets."""
    with open_service(context) as service:
        now = service.clock()
        with service.database.read() as unit:
            found = api_keys.find(unit)[::-1]
    if json:
        output.as_json([_data(key) for key in found])
        return
    output.table(
        _COLUMNS,
        (
            (
                output.short(key.id),
                key.name,
                f"{key.prefix}...",
                key.environment,
                ", ".join(key.scopes),
                key.created_at,
                key.last_used_at or "never",
                key.expires_at,
                _status(key, is_good=api_keys.is_good(key, now)),
            )
            for key in found
        ),
    )


@app.command(epilog=example('receipted keys rotate 5b0c2f7e91aa --overlap 2d --by "Ada L."'))
def rotate(
    context: typer.Context,
    key_id: Id,
    by: By,
    overlap: Annotated[str, typer.Option("--overlap", metavar="SPAN", help="How long the old key stays good.")] = "1d",
    json: AsJson = False,
) -> None:
    """Replace a key: print a new one with the same rights, and end this one later.

    The new key is shown only now; the old one ends after the overlap.
    """
    with open_service(context) as service:
        now = service.clock()
        until = now + parse_duration(overlap, option="overlap")
        with service.database.write() as unit:
            old = api_keys.get(unit, find_id(unit, ApiKey, key_id))
            if not api_keys.is_good(old, now):
                raise InvalidInput("the key is good no more, so that there is nothing to rotate: add one", param="id")
            key, text = rotated_key(old, now)
            api_keys.replace(unit, old.id, key, until)
            _note(unit, now, by, "rotate key", old.id, f"replaced by {key.id}")
    _show(_NewKey(key, text), as_json=json)
    if not json:
        output.note(f"the old key {old.prefix}... is good until {output.shown(until)}")


@app.command(epilog=example('receipted keys revoke 5b0c2f7e91aa --by "Ada L." --reason "it was in a log"'))
def revoke(
    context: typer.Context,
    key_id: Id,
    by: By,
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the action.")] = "not needed any more",
    json: AsJson = False,
) -> None:
    """Revoke a key: it is refused from now on, in every process."""
    with open_service(context) as service:
        now = service.clock()
        with service.database.write() as unit:
            found = find_id(unit, ApiKey, key_id)
            key = api_keys.revoke(unit, found, now)
            _note(unit, now, by, "revoke key", found, reason)
    if json:
        output.as_json(_data(key))
    else:
        output.say(f"{key.prefix}... ({key.name}) is revoked")


def _note(unit: Any, now: Any, by: str, action: str, subject: str, reason: str) -> None:
    operator_actions.note(unit, account=None, at=now, actor=by, action=action, subject=subject, reason=reason)


def _status(key: ApiKey, *, is_good: bool) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "good" if is_good else "expired"


def _data(key: ApiKey) -> dict[str, Any]:
    return output.columns_of(key, without=("digest",))


def _show(new: _NewKey, *, as_json: bool) -> None:
    if as_json:
        output.as_json({**_data(new.key), "key": new.text})
        return
    output.say(new.text)
    output.note(f"{new.key.name}: {new.key.environment}, {', '.join(new.key.scopes)} ({output.short(new.key.id)})")
    output.note("keep it in a secret store: it is not shown again")
