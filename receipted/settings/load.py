"""Load the settings from a TOML file and the environment, the only reader of it."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)
from pydantic_settings.sources.utils import parse_env_vars

from providers.catalogue import PROVIDERS, with_pages
from providers.contract import Provider
from providers.engine.pointers import InvalidPage
from receipted.errors import ConfigurationError, SettingFault
from receipted.settings.faults import did_you_mean, shape_faults, without_refused
from receipted.settings.models import Settings, SinkSettings
from receipted.settings.secrets import SecretReader
from receipted.settings.validate import FEED_SINK, all_effects, validate, warnings

_FEED_HANDLER: Final = "api.feed_only:keep"
__all__ = ["DEFAULT_PATH", "PREFIX", "Settings", "describe", "load", "parse", "settings_path", "warn"]
PREFIX: Final = "RECEIPTED_"
DEFAULT_PATH: Final = Path("receipted.toml")
_FIELD: Final = re.compile(r'field "(\w+)"')
_JSON_REMEDY: Final = """give lists and tables as JSON, such as '["10.0.0.0/8"]'"""
_log = structlog.get_logger(__name__)


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Load and validate settings from the file and, over it, the environment.

    Raises ConfigurationError, whose `faults` names everything that is wrong. A variable
    `RECEIPTED_SERVICE__LISTEN_PORT` overrides `service.listen_port`; lists are given as JSON. Paths of secrets start
    at the file's folder.
    """
    file = settings_path(path, environ)
    data: dict[str, Any] = _from_file(file) if file else {}
    overrides, faults = _from_environment(environ)
    _overlay(data, overrides)
    if file is not None:
        return parse(data, environ=environ, base=file.parent, earlier_faults=faults)
    try:
        return parse(data, environ=environ, base=Path(), earlier_faults=faults)
    except ConfigurationError as fault:  # first in the list, since it explains the others
        problem = f"was not found: {DEFAULT_PATH.absolute()} does not exist, and {PREFIX}CONFIG is not set"
        remedy = "give --config PATH before the command, or copy receipted.example.toml there and edit it"
        raise ConfigurationError([SettingFault("a settings file", problem, remedy), *fault.faults]) from None


def parse(
    data: Mapping[str, Any],
    *,
    environ: Mapping[str, str] | None = None,
    base: Path | None = None,
    providers: Mapping[str, type[Provider]] | None = None,
    earlier_faults: list[SettingFault] | None = None,
) -> Settings:
    """Validate settings from the parsed content of a file. Raises ConfigurationError.

    Whatever is refused is left out and the rest is checked all the same, so that one run reports every fault.
    """
    faults = list(earlier_faults or ())
    if providers is None:
        providers, page_faults = _providers(data.get("providers", ()), base or Path())
        faults += page_faults
    reader = SecretReader(environ or {}, base or Path())
    rest, settings = dict(data), None
    refused: list[SettingFault] = []
    while settings is None:
        settings, fault = _try_validate(rest, reader)
        if fault is not None:
            new = [found for found in shape_faults(fault, Settings) if found not in refused]
            refused += new
            reduced = without_refused(rest, fault)
            if reduced == rest:
                break  # nothing more can be left out
            rest = reduced
    faults += refused
    if settings is not None:
        places = tuple(found.setting for found in faults)
        faults += (found for found in validate(settings, providers) if not _is_within(found.setting, places))
    if faults or settings is None:
        raise ConfigurationError(faults)
    return add_feed_sink(settings, providers).with_providers(providers)


def _providers(entries: object, base: Path) -> tuple[Mapping[str, type[Provider]], list[SettingFault]]:
    """Return the known providers, and what is wrong with the settings' pages."""
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, str) for entry in entries):
        return PROVIDERS, []  # said where the shape of all settings is checked
    try:
        return with_pages(entries, base), []
    except InvalidPage as fault:
        return PROVIDERS, [SettingFault("providers", f"cannot be used: {fault.message}", "mend the page")]


def describe(settings: Settings) -> dict[str, Any]:
    """Return all settings as JSON values; secrets appear as their references."""
    return settings.model_dump(mode="json")


def warn(settings: Settings) -> None:
    """Log warnings about valid settings that are unwise; needs configured logs."""
    for setting, secret in settings.secrets():
        if secret.is_exposed:
            _log.warning("settings.file_exposed", setting=setting, file=secret.reference.removeprefix("file:"))
    for found in warnings(settings):
        _log.warning("settings.warning", setting=found.setting, problem=found.problem, remedy=found.remedy)


def settings_path(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the file to read: the given one, RECEIPTED_CONFIG's, or ./receipted.toml.

    None where none of them is there.
    """
    if path is not None:
        return path
    named = environ.get(f"{PREFIX}CONFIG")
    if named:
        return Path(named)
    return DEFAULT_PATH if DEFAULT_PATH.is_file() else None


def add_feed_sink(settings: Settings, providers: Mapping[str, type[Provider]]) -> Settings:
    """Add a sink for the API's feed if the API is on and sinks leave effects out."""
    takes = [sink.takes() for sink in settings.sinks]
    missing = tuple(effect for effect in all_effects(providers) if not any(takes_it(effect) for takes_it in takes))
    if not missing or not settings.api.enabled:
        return settings
    feed = SinkSettings(name=FEED_SINK, kind="python", handler=_FEED_HANDLER, effects=missing)
    return settings.model_copy(update={"sinks": (*settings.sinks, feed)})


class _Sources(BaseSettings, Settings):
    """Names of settings for pydantic-settings. Never instantiated.

    The values are validated once, as Settings.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__")


class _Environment(EnvSettingsSource):
    """Settings source over the environment that was passed in."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        super().__init__(_Sources)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return parse_env_vars(self._environ)


def _try_validate(data: dict[str, Any], reader: SecretReader) -> tuple[Settings | None, ValidationError | None]:
    try:
        return Settings.model_validate(data, context=reader), None
    except ValidationError as fault:
        return None, fault


def _is_within(setting: str, places: tuple[str, ...]) -> bool:
    return any(setting == place or setting.startswith(f"{place}.") for place in places)


def _from_file(path: Path) -> dict[str, Any]:
    fault: SettingFault
    try:
        if path.is_file():
            return dict(TomlConfigSettingsSource(_Sources, toml_file=path).toml_data)
        fault = SettingFault(f"the file {path}", "does not exist", "copy receipted.example.toml there and edit it")
    except OSError as found:
        fault = SettingFault(
            f"the file {path}", f"cannot be read ({found.strerror})", "make it readable for this process"
        )
    except ValueError as found:  # not TOML, or not UTF-8
        fault = SettingFault(f"the file {path}", f"is not TOML: {found}", "mend it at the place named")
    raise ConfigurationError([fault])


def _from_environment(environ: Mapping[str, str]) -> tuple[dict[str, Any], list[SettingFault]]:
    """Return what the environment overrides, and its faults."""
    faults = _unknown_variables(environ)
    missing = dict(environ)
    while True:
        try:
            return dict(_Environment(missing)()), faults
        except SettingsError as fault:
            # only the field's name is used: the error's cause repeats the value
            found = _FIELD.search(str(fault))
            field = found[1] if found else ""
            faults.append(
                SettingFault(
                    field or "the environment", "is given in a variable as something other than JSON", _JSON_REMEDY
                )
            )
            reduced = {name: value for name, value in missing.items() if not _overrides(name, field)}
        if len(reduced) == len(missing):
            return {}, faults
        missing = reduced


def _overrides(variable: str, section: str) -> bool:
    return variable.lower().startswith(f"{PREFIX.lower()}{section}")


def _unknown_variables(environ: Mapping[str, str]) -> list[SettingFault]:
    """Return faults for variables that override nothing.

    Those with one underscore are of other programs: Kubernetes sets RECEIPTED_SERVICE_HOST for a service of this name,
    and a secret's variable may well be named RECEIPTED_TOKEN_KEY.
    """
    faults = []
    for name in environ:
        section, delimiter, _ = name.upper().removeprefix(PREFIX).partition("__")
        if name.upper().startswith(PREFIX) and delimiter and section.lower() not in Settings.model_fields:
            remedy = did_you_mean(section.lower(), Settings.model_fields)
            faults.append(SettingFault(f"the variable {name}", "overrides no setting", remedy))
    return faults


def _overlay(data: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    for name, value in overrides.items():
        under = data.get(name)
        if isinstance(under, dict) and isinstance(value, Mapping):
            _overlay(under, value)
        else:
            data[name] = value
