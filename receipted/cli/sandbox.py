"""`receipted sandbox`: the four providers over HTTP, with faults on demand."""

from dataclasses import dataclass, fields, replace
from typing import Annotated, Any

import typer

from receipted import logs
from receipted.cli import output, server
from receipted.cli.exits import InvalidInput
from receipted.cli.options import AsJson, parse_pairs
from sandbox.app import create_app
from sandbox.config import Faults, Payers, PayfieldShop, SandboxConfig


@dataclass(frozen=True, slots=True)
class SandboxAccount:
    """One account at the sandbox, as the settings of `receipted serve` describe it."""

    name: str
    provider: str
    base_url: str
    secrets: dict[str, str]
    webhook_key: str
    options: dict[str, str]

    def toml(self) -> str:
        """Return the account's part of a settings file, for development."""
        secrets = "\n".join(f'{name} = "plain:{value}"' for name, value in self.secrets.items())
        options = "\n".join(["allow_loopback_http = true", *(f'{n} = "{v}"' for n, v in self.options.items())])
        return "\n".join(
            [
                f'[accounts.{self.name}]\nprovider = "{self.provider}"\nbase_url = "{self.base_url}"',
                'environment = "test"',
                f"[accounts.{self.name}.secrets]\n{secrets}",
                f'[[accounts.{self.name}.webhook_keys]]\nid = "sandbox"\nsecret = "plain:{self.webhook_key}"',
                f"[accounts.{self.name}.options]\n{options}",
            ]
        )


def sandbox(
    host: Annotated[str, typer.Option("--host", help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one.")] = 8900,
    speed: Annotated[float, typer.Option("--speed", help="How much faster the providers' time runs.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="Repeats faults and payers.")] = 0,
    faults: Annotated[
        str, typer.Option("--faults", metavar="NAME=CHANCE,...", help="What goes wrong, each from 0 to 1.")
    ] = "",
    payers: Annotated[bool, typer.Option("--payers/--no-payers", help="Simulate people who pay, or do not.")] = False,
    json: AsJson = False,
) -> None:
    """Simulate the four providers over real HTTP.

    They answer until Ctrl-C, and nothing survives it.
    """
    logs.configure("warning", "console")
    try:
        config = SandboxConfig(seed=seed, speed=speed, faults=parse_faults(faults), payers=Payers() if payers else None)
    except ValueError as fault:
        raise InvalidInput(str(fault), param="speed") from fault
    listener = server.listen(host, port)
    url = server.address(listener)
    app = create_app(replace(config, public_url=url))
    closing = app.state.sandbox.closing

    def ready() -> None:
        _announce(url, config, as_json=json)

    # Withheld answers would hold the shutdown up.
    server.serve(app, listener, on_ready=ready, on_stop=closing.set)


def parse_faults(text: str) -> Faults:
    """Parse the faults in `name=chance,...`; raises InvalidInput with the known names."""
    names = ", ".join(item.name for item in fields(Faults))
    values: dict[str, float] = {}
    for name, value in parse_pairs([part for part in text.split(",") if part.strip()], option="faults").items():
        try:
            values[name] = float(value)
        except ValueError as fault:
            raise InvalidInput(f"{name} is no number: {value!r}", param="faults") from fault
    try:
        return Faults().changed(values)
    except ValueError as fault:
        raise InvalidInput(f"{fault}; there are: {names}", param="faults") from fault


def sandbox_accounts(url: str, config: SandboxConfig) -> list[SandboxAccount]:
    """Return an account at each provider that the sandbox simulates."""
    ap, sg, banked = config.alternative_payments, config.stable_genius, config.banked
    return [
        SandboxAccount(
            "alternative",
            "alternative_payments",
            f"{url}/alternative-payments",
            {"client_id": ap.client_id, "client_secret": ap.client_secret},
            ap.webhook_secret,
            {"amount_unit": ap.amount_unit},
        ),
        SandboxAccount(
            "stable",
            "stable_genius",
            f"{url}/stable-genius/v1",
            {"api_key": sg.test_key},
            sg.signing_secret,
            {"merchant_id": sg.merchants[0]},  # its webhook is registered in the dashboard, as below
        ),
        _payfield("payfield", f"{url}/payfield", config.payfield),
        _payfield("payfield-old", f"{url}/payfield-old", config.payfield_old),
        SandboxAccount(
            "banked",
            "banked",
            f"{url}/banked",
            {"api_key": banked.key, "api_secret": banked.secret},
            banked.signature_key,
            {"deleted_state": "failed"},
        ),
    ]


def _payfield(name: str, url: str, shop: PayfieldShop) -> SandboxAccount:
    secrets = {"api_key": shop.api_key, "api_secret": shop.api_secret}
    return SandboxAccount(name, "payfield", url, secrets, shop.webhook_secret, {"dialect": shop.dialect})


def _announce(url: str, config: SandboxConfig, *, as_json: bool) -> None:
    found = sandbox_accounts(url, config)
    if as_json:
        output.as_json({"url": url, "checkout": f"{url}/checkout", "accounts": [_data(account) for account in found]})
        return
    output.say(f"the sandbox plays at {url}; pay at {url}/checkout, control it at {url}/_control/truth")
    output.say("")
    rows = ((a.provider, a.base_url, " ".join(f"{n}={v}" for n, v in a.secrets.items()), a.webhook_key) for a in found)
    output.table(("Provider", "Called at", "Credentials", "Webhook key"), rows)
    output.say("")
    output.say("# For receipted.toml, with service.development = true:")
    for account in found:
        output.say(account.toml())
        output.say("")
    output.say("# Register this service's URLs as in a dashboard, once `receipted serve` runs, for example:")
    output.say(
        f"#   curl -X PUT {url}/_control/webhook -H 'content-type: application/json' "
        '-d \'{"provider": "banked", "url": "http://127.0.0.1:8000/webhooks/banked"}\''
    )


def _data(account: SandboxAccount) -> dict[str, Any]:
    return {
        "name": account.name,
        "provider": account.provider,
        "environment": "test",
        "base_url": account.base_url,
        "secrets": account.secrets,
        "webhook_key": account.webhook_key,
        "options": {"allow_loopback_http": True, **account.options},
    }
