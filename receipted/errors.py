"""Errors of the configuration: every fault that was found, not only the first."""

from collections.abc import Iterable
from dataclasses import dataclass

from statemachine.errors import ServiceError


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one setting, in words that never contain a secret's value."""

    setting: str  #: its full name, such as `accounts.shop.webhook_keys.0.secret`
    problem: str  #: completes the sentence "<setting> ..."
    remedy: str  #: what would be right

    def __str__(self) -> str:
        return f"{self.setting} {self.problem}; {self.remedy}"


class ConfigurationError(ServiceError):
    """The settings cannot be used; `faults` names everything that is wrong with them, not only the first thing."""

    code = "invalid_configuration"

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        number = f"{len(self.faults)} faults" if len(self.faults) != 1 else "1 fault"
        super().__init__("\n".join([f"the settings have {number}:", *(f"- {fault}" for fault in self.faults)]))
