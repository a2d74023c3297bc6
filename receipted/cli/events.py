"""`receipted events`: the feed of effects, from any position, like the API."""

import json as json_module
import time
from typing import Annotated, Any, Final

import typer

from api.feed import require_held
from receipted.cli import lists, output
from receipted.cli.exits import InvalidInput
from receipted.cli.options import AsJson, Limit, open_service, require_account
from receipted.wiring import Service
from storage import event_feed as feed
from storage.event_feed import Cursor, Told

_COLUMNS: Final = ("ID", "Owed", "Effect", "Account", "Payment")

#: Seconds between two looks of one who waits.
_POLL_INTERVAL_S: Final = 0.25


def events(
    context: typer.Context,
    after: Annotated[
        str, typer.Option("--after", metavar="ID", help="The `next`, or the ID, that was had last; 0 for all.")
    ] = "0",
    account: Annotated[str | None, typer.Option("--account", help="Only about this account.")] = None,
    payment: lists.OfPayment = None,
    effect: Annotated[str | None, typer.Option("--effect", help="Only this, such as payment.paid.")] = None,
    limit: Limit = 100,
    wait: Annotated[
        float, typer.Option("--wait", metavar="SECONDS", min=0, max=3600, help="Wait so long where there is none.")
    ] = 0,
    json: AsJson = False,
) -> None:
    """List the effects after a position of the feed, the oldest first, each once.

    None is ever left out, and nothing is ever added before what was listed. With --json, give `next` as --after the
    next time.
    """
    with open_service(context) as service:
        require_account(service, account)
        about = lists.find_payment_id(service, payment)
        deadline = time.monotonic() + wait
        place = _place(after)
        while True:
            found, end = _read(service, place, account, about, effect, limit + 1)
            left = deadline - time.monotonic()
            if found or left <= 0:
                break
            time.sleep(min(_POLL_INTERVAL_S, left))  # on SQLite there is no signal of other processes' writes
    rows, has_more = found[:limit], len(found) > limit
    following = str(rows[-1].cursor if has_more else end)
    if json:
        output.as_json({"data": [_data(event) for event in rows], "has_more": has_more, "next": following})
        return
    output.table(
        _COLUMNS,
        (
            (str(event.cursor), event.created_at, event.effect, event.account, output.short(event.payment_id))
            for event in rows
        ),
    )
    output.note(f"{'there is more' if has_more else 'that is all for now'}: receipted events --after {following}")


def _read(
    service: Service, after: Cursor, account: str | None, payment: str | None, effect: str | None, limit: int
) -> tuple[list[Told], Cursor]:
    """Read what follows, and the feed's end in the same snapshot.

    Raises CursorAhead where the feed does not hold `after`.
    """
    feed.caught_up(service.database)
    accounts = [account] if account is not None else list(service.accounts)
    with service.database.read() as unit:
        require_held(unit, after)
        effects = [effect] if effect is not None else []
        found = feed.find(unit, accounts, after=after.number, limit=limit, effects=effects, payment_id=payment)
        return found, feed.end(unit)


def _place(text: str) -> Cursor:
    found = feed.read_cursor(text.strip())
    if found is None:
        raise InvalidInput("give `next` or an ID as this command printed it, or 0", param="after")
    return found


def _data(event: Told) -> dict[str, Any]:
    return {
        "id": str(event.cursor),
        "type": event.effect,
        "account": event.account,
        "payment": event.payment_id,
        "created_at": event.created_at,
        "data": None if event.payload is None else json_module.loads(event.payload)["data"],
    }
