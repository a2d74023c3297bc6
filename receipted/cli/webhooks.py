"""`receipted webhooks register`: register our webhook URL with a provider."""

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlencode

import typer

from providers.contract import Answer, Capability
from providers.decoding import Unreadable, json_object
from receipted.cli import output
from receipted.cli.exits import InvalidInput, example
from receipted.cli.options import AccountName, AsJson, open_service, parse_pairs, require_account, subcommands
from receipted.cli.processes import webhook_url
from receipted.wiring import Service, WiredAccount
from service.errors import AnswerUnclear

app = subcommands("Register webhook URLs with providers.")


@app.callback()
def group() -> None:
    """Register webhook URLs with providers."""


@app.command(
    epilog=example(
        "receipted webhooks register shop",
        "receipted webhooks register shop --detail topic=payment_refunded",
    )
)
def register(
    context: typer.Context,
    account: AccountName,
    kind: Annotated[
        str | None, typer.Option("--kind", help="Deliver this kind to a URL of its own, where bodies do not say it.")
    ] = None,
    detail: Annotated[
        list[str] | None,
        typer.Option("--detail", metavar="KEY=VALUE", help="What else the provider's call takes; may be repeated."),
    ] = None,
    show_answer: Annotated[
        bool, typer.Option("--show-answer", help="Print the provider's answer, which may hold a new signing key.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Register our public URL with an account's provider.

    A repeat may make a second subscription. Where the provider takes the key to sign with, it is sent the account's
    first webhook key that is valid now.
    """
    details = parse_pairs(detail or [], option="detail")
    with open_service(context) as service:
        require_account(service, account)
        wired = service.accounts[account]
        wired.provider.require(Capability.REGISTER)
        url = _url(service, wired, kind)
        answer = asyncio.run(_register(service, wired, url, {**_key(service, wired), **details}))
    body = {"answer": answer.body.decode("utf-8", "backslashreplace")} if show_answer else {}
    if json:
        output.as_json({"account": account, "url": url, "http_status": answer.status, **body})
        return
    output.say(f"{url} is registered for {account} (the provider answered {answer.status})")
    if show_answer:
        output.say(output.shown(body["answer"], keep="\n\t"))


def _url(service: Service, account: WiredAccount, kind: str | None) -> str:
    url = webhook_url(service, account.name)
    if kind is None:
        return url
    if kind not in account.provider.lifecycles:
        known = ", ".join(account.provider.lifecycles)
        raise InvalidInput(f"{account.provider.name} has no {kind!r}; it has: {known}", param="kind")
    return f"{url}?{urlencode({'kind': kind})}"


def _key(service: Service, account: WiredAccount) -> dict[str, str]:
    name = account.provider.webhook_key_detail
    active = next(iter(account.settings.keyring().active(service.clock())), None)
    return {name: active.secret.decode()} if name is not None and active is not None else {}


async def _register(service: Service, account: WiredAccount, url: str, details: Mapping[str, str]) -> Answer:
    async with service.clients() as clients:
        answer = await clients[account.name].register_webhook(url, **details)
    _check_clear(answer)
    return answer


def _check_clear(answer: Answer) -> None:
    """Raise AnswerUnclear unless a 2xx answer confirms the registration.

    It is a JSON object without an error in it, or says by its status that it has no content.
    """
    if answer.status == HTTPStatus.NO_CONTENT:
        return
    try:
        body = json_object(answer.body)
    except Unreadable as fault:
        words = f"the provider answered {answer.status}, and {fault}: whether the URL is registered is not known"
        raise AnswerUnclear(words) from None
    if body.get("error") or body.get("errors"):
        words = f"the provider answered {answer.status} with an error: whether the URL is registered is not known"
        raise AnswerUnclear(words)
