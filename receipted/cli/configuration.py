"""`receipted config check`: check the settings, and show what they come to."""

import typer

from receipted.cli import output
from receipted.cli.exits import example
from receipted.cli.options import AsJson, load_settings, subcommands
from receipted.settings import load, validate
from receipted.settings.models import AccountSettings, Settings, masked_url
from receipted.startup import rehearse
from receipted.wiring import utc_now

app = subcommands("Check the settings.")


@app.callback()
def group() -> None:
    """Check the settings."""


@app.command(epilog=example("receipted --config receipted.toml config check"))
def check(context: typer.Context, json: AsJson = False) -> None:
    """Report all faults of the settings at once (exit 2), or a masked summary."""
    found = load_settings(context)
    rehearse(found)
    silent = [name for name, account in found.accounts.items() if not account.has_active_key(utc_now())]
    doubtful = [*validate.exposed_secrets(found), *validate.warnings(found)]
    if json:
        warnings = [{"setting": each.setting, "problem": each.problem, "remedy": each.remedy} for each in doubtful]
        shown = {"accounts_without_active_key": silent, "warnings": warnings, "settings": load.describe(found)}
        output.as_json({"ok": True, **shown})
        return
    _summary(found)
    for each in doubtful:
        output.note(f"warning: {each}")
    for name in silent:
        output.note(f"warning: no webhook key of {name} is valid now: its deliveries are all refused")
    output.say("the settings can work")


def _summary(found: Settings) -> None:
    service = found.service
    output.fields(
        {
            "database": masked_url(service.database),
            "listens at": f"{service.listen_host}:{service.listen_port}",
            "public URL": service.public_url,
            "development": service.development,
            "token keys": ", ".join(key.id for key in service.token_keys),
        }
    )
    output.say("")
    output.table(
        ("Account", "Provider", "Called at", "Webhook keys", "Conflicts", "Webhook URL"),
        (
            (
                name,
                account.provider,
                _called_at(found, account),
                ", ".join(key.id for key in account.webhook_keys),
                account.conflicts,
                f"{service.public_url}/webhooks/{name}",
            )
            for name, account in found.accounts.items()
        ),
    )
    output.say("")
    output.table(
        ("Sink", "Kind", "Goes to"),
        ((sink.name, sink.kind, sink.url.reference if sink.url else sink.handler) for sink in found.sinks),
    )
    output.say("")


def _called_at(found: Settings, account: AccountSettings) -> str:
    return account.base_url or found.provider_types()[account.provider].default_base_url
