"""`receipted trigger`: send a signed sample of an effect to a shop's endpoint."""

import asyncio
import json as json_module
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from fulfilment.contract import OwedEffect, Result
from fulfilment.errors import InsecureSinkUrl
from fulfilment.http_sink import HttpSink
from fulfilment.network import Network
from providers.catalogue import PROVIDERS
from receipted import redaction
from receipted.cli import output
from receipted.cli.exits import Exit, InvalidInput
from receipted.cli.options import AsJson, load_settings
from receipted.settings.models import Settings
from receipted.wiring import utc_now
from service.effect_schema import effect_meanings, sample
from storage.ids import WEBHOOK_PREFIX, new_id

SinkName = Annotated[
    str | None,
    typer.Option("--sink", metavar="NAME", help="Sign with this sink's secrets; else with those of the sink at URL."),
]
SecretFile = Annotated[
    Path | None,
    typer.Option("--secret-file", metavar="PATH", help="Sign with the whsec_ secret in this file; needs no settings."),
]

#: Seconds that the endpoint has to answer.
_TIMEOUT_S: Final = 15.0


def trigger(
    context: typer.Context,
    effect: Annotated[str, typer.Argument(metavar="EFFECT", help="Such as payment.paid.", show_default=False)],
    to: Annotated[str, typer.Option("--to", metavar="URL", help="Your endpoint.", show_default=False)],
    sink: SinkName = None,
    secret_file: SecretFile = None,
    payload: Annotated[bool, typer.Option("--payload", help="Print what is sent as well.")] = False,
    json: AsJson = False,
) -> None:
    """Send a signed sample of an effect to your endpoint, and show its answer.

    Nothing is recorded, and no payment is needed. Plain HTTP goes to this machine only.
    """
    known = effect_meanings(tuple({life.subject for each in PROVIDERS.values() for life in each.lifecycles.values()}))
    if effect not in known:
        near = get_close_matches(effect, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(effect_meanings())}"
        raise InvalidInput(f"no effect {effect!r}; {hint}", param="effect")
    target = signing_sink(context, to, sink=sink, secret_file=secret_file)
    now = utc_now()
    effect_id = new_id()
    body = json_module.dumps(sample(effect, now.astimezone(UTC), effect_id), ensure_ascii=False)
    owed = OwedEffect(effect_id, effect, None, 1, body, now)
    result, took_ms = asyncio.run(_send(target, owed))
    print_answer(owed, to, result, took_ms, shows_payload=payload, as_json=json)
    if not is_taken(result):
        raise typer.Exit(Exit.FAILED)


async def _send(target: HttpSink, owed: OwedEffect) -> tuple[Result, int]:
    async with aclosing(target):
        return await send(target, owed)


async def send(target: HttpSink, owed: OwedEffect) -> tuple[Result, int]:
    """Deliver one effect; return the result and the milliseconds that it took."""
    began = asyncio.get_running_loop().time()
    result = await target.deliver(owed, utc_now())
    return result, round((asyncio.get_running_loop().time() - began) * 1000)


def is_taken(result: Result) -> bool:
    """Tell whether the endpoint has taken the effect."""
    return not hasattr(result, "error")


def print_answer(
    owed: OwedEffect, url: str, result: Result, took_ms: int, *, shows_payload: bool = False, as_json: bool = False
) -> None:
    """Print what was sent and how the endpoint answered."""
    error: str | None = getattr(result, "error", None)
    answer = redaction.redact_answer(result.answer)
    data: dict[str, Any] = {"effect": owed.effect, "webhook_id": f"{WEBHOOK_PREFIX}{owed.id}", "to": url}
    data |= {"http_status": result.http_status, "error": error, "answer": answer, "duration_ms": took_ms}
    if as_json:
        line = json_module.dumps({**data, **({"payload": owed.payload} if shows_payload else {})})
        output.write_bytes(f"{line}\n".encode())
        return
    output.say(f"{owed.effect} to {url}, webhook-id {data['webhook_id']}")
    if shows_payload:
        output.say(json_module.dumps(json_module.loads(owed.payload), indent=2, ensure_ascii=False))
    output.say(f"{error or f'taken: answered {result.http_status}'}, {took_ms} ms")
    if answer:
        output.say(output.shown(answer, keep="\n\t"))
    if result.http_status == 400:
        output.note("a receiver answers 400 to a wrong signature: compare its secret with the sink's")


def signing_sink(context: typer.Context, url: str, *, sink: str | None, secret_file: Path | None) -> HttpSink:
    """Return a sink to the URL that signs as the shop expects; raises InvalidInput."""
    networks: Sequence[Network] = ()
    if secret_file is not None:
        try:
            keys = [secret_file.read_text(encoding="utf-8").strip()]
        except (OSError, UnicodeDecodeError) as fault:
            raise InvalidInput(f"{secret_file} cannot be read: {fault}", param="secret-file") from fault
        redaction.register_secrets(keys)
    else:
        settings = load_settings(context)
        keys, networks = _keys(settings, url, sink), settings.fulfilment.allowed_networks
    try:
        return HttpSink("endpoint", url, keys, allowed_networks=networks, allow_loopback=True, timeout=_TIMEOUT_S)
    except InsecureSinkUrl:
        raise InvalidInput(
            f"{url!r} is no endpoint: give https://, or http:// to this machine such as http://127.0.0.1:5000/effects",
            param="to",
        ) from None


def _keys(settings: Settings, url: str, name: str | None) -> list[str]:
    """Return the secrets of the named sink, of that at the URL, or of the only one."""
    sinks = [each for each in settings.sinks if each.kind == "http" and each.secrets]
    if name is not None:
        chosen = [each for each in sinks if each.name == name]
    else:
        chosen = [each for each in sinks if each.url_text() == url] or sinks
    if len(chosen) == 1:
        return [secret.reveal() for secret in chosen[0].secrets]
    names = ", ".join(each.name for each in sinks)
    if name is not None and sinks:
        raise InvalidInput(f"no HTTP sink {name!r}; there are: {names}", param="sink")
    if not sinks:
        raise InvalidInput("the settings have no HTTP sink to sign as: give --secret-file PATH", param="sink")
    raise InvalidInput(f"several sinks could sign: give --sink with one of {names}", param="sink")
