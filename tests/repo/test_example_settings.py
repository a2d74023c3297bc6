"""receipted.example.toml names every setting, and says of each what the model says."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from receipted.settings.load import Settings, parse
from receipted.settings.models import (
    AccountSettings,
    ApiSettings,
    BudgetSettings,
    ConsoleSettings,
    FulfilmentSettings,
    LogSettings,
    MetricsSettings,
    OidcSettings,
    PollerSettings,
    PushSettings,
    ReconciliationSettings,
    RetentionSettings,
    ServiceSettings,
    SinkSettings,
    TokenKey,
    TracingSettings,
    WebhookKey,
    WorkerSettings,
)

EXAMPLE = Path(__file__).parents[2] / "receipted.example.toml"
HEADER = re.compile(r"\[\[?([a-z_.]+)\]\]?")
SETTING = re.compile(r"#?([a-z_]+) = (.+)")

MODELS = {
    "service": ServiceSettings,
    "service.token_keys": TokenKey,
    "service.audit_keys": TokenKey,
    "log": LogSettings,
    "poller": PollerSettings,
    "reconciliation": ReconciliationSettings,
    "push": PushSettings,
    "retention": RetentionSettings,
    "metrics": MetricsSettings,
    "oidc": OidcSettings,
    "tracing": TracingSettings,
    "api": ApiSettings,
    "console": ConsoleSettings,
    "worker": WorkerSettings,
    "fulfilment": FulfilmentSettings,
    "sinks": SinkSettings,
    "accounts.shop": AccountSettings,
    "accounts.shop.webhook_keys": WebhookKey,
}

#: Settings above all sections.
ABOVE = {"providers"}

ENVIRONMENT = {
    "RECEIPTED_TOKEN_KEY": "t" * 32,
    "RECEIPTED_AUDIT_KEY": "a" * 32,
    "SHOP_SINK_KEY": "whsec_" + "A" * 32,
    "SHOP_API_KEY": "an-api-key",
    "SHOP_API_SECRET": "an-api-secret",
    "SHOP_WEBHOOK_KEY": "w" * 32,
}


def lines():
    """Each setting of the example: its section, name, value, comment, and whether it is in force."""
    section, before = "", ""
    for line in EXAMPLE.read_text().splitlines():
        if header := HEADER.fullmatch(line):
            section = header[1]
        elif setting := SETTING.fullmatch(line):
            value = tomllib.loads(f"it = {setting[2]}")["it"]
            yield section, setting[1], value, before, not line.startswith("#")
        before = line


def settings():
    within = [(section, name, model, field) for section, model in MODELS.items() for name, field in fields_of(model)]
    return [("", name, Settings, Settings.model_fields[name]) for name in ABOVE] + within


def fields_of(model: type[BaseModel]):
    return [(name, field) for name, field in model.model_fields.items() if not name.endswith("_keys")]


def test_the_sections_are_those_of_the_model():
    assert {name.partition(".")[0] for name in MODELS} == set(Settings.model_fields) - ABOVE
    assert {section for section, *_ in lines()} == {*MODELS, ""}


def test_nothing_is_named_twice_and_nothing_is_invented():
    found = [(section, name) for section, name, *_ in lines()]
    assert sorted(found) == sorted((section, name) for section, name, _, _ in settings())


@pytest.mark.parametrize(("section", "name", "model", "field"), settings())
def test_each_setting_has_its_description_and_its_default(section, name, model, field):
    value, comment, in_force = next(rest for place, found, *rest in lines() if (place, found) == (section, name))
    told = field.description[0].upper() + field.description[1:] + "."
    default = field.get_default(call_default_factory=False)
    if (field.json_schema_extra or {}).get("required"):
        assert (in_force, comment) == (True, f"# {told}")
    elif default is None and field.default_factory is None:
        assert comment == f"# {told} Not set by default."
    else:
        assert comment == f"# {told}"
        if not in_force:
            assert getattr(model.model_validate({name: value}), name) == getattr(model(), name)


def test_an_example_of_a_budget_names_all_of_it():
    budget = next(value for _, name, value, *_ in lines() if name == "budget")
    assert set(budget) == set(BudgetSettings.model_fields)


def test_the_example_is_in_force_once_its_secrets_exist():
    found = parse(tomllib.loads(EXAMPLE.read_text()), environ=ENVIRONMENT)
    assert found.accounts["shop"].keyring().keys[0].secret == b"w" * 32


def test_every_line_uncommented_is_still_toml():
    text = "\n".join(
        line.removeprefix("#") if SETTING.fullmatch(line) else line for line in EXAMPLE.read_text().splitlines()
    )
    assert set(tomllib.loads(text)) == set(Settings.model_fields)
