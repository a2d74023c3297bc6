"""Errors of the configuration."""

from collections.abc import Iterable
from dataclasses import dataclass

from statemachine.errors import ServiceError


@dataclass(frozen=True, slots=True)
class SettingFault:
    """Fault of one setting, in words that never contain a secret's value."""

    setting: str  #: its full name, such as `accounts.shop.webhook_keys.0.secret`
    problem: str  #: completes the sentence "<setting> ..."
    remedy: str  #: what would be right

    def __str__(self) -> str:
        return f"{self.setting} {self.problem}; {self.remedy}"


class ConfigurationError(ServiceError):
    """The settings cannot be used; `faults` has everything that is wrong."""

    code = "invalid_configuration"

    def __init__(self, faults: Iterable[SettingFault]) -> None:
        self.faults = tuple(faults)
        number = f"{len(self.faults)} faults" if len(self.faults) != 1 else "1 fault"
        super().__init__("\n".join([f"the settings have {number}:", *(f"- {fault}" for fault in self.faults)]))
