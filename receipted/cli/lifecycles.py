"""`receipted lifecycles`: states, phases and moves of every provider's payments."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer

from providers.catalogue import PROVIDERS
from providers.contract import Provider
from receipted.cli import output
from receipted.cli.exits import InvalidInput
from receipted.cli.options import AsJson
from statemachine.lifecycle import Lifecycle

_NO_IDENTIFIER: Final = re.compile(r"\W", re.ASCII)


def lifecycles(
    provider: Annotated[
        str | None, typer.Argument(metavar="PROVIDER", help="Only this provider's.", show_default=False)
    ] = None,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print state diagrams for Mermaid.")] = False,
    json: AsJson = False,
) -> None:
    """Show the states that payments may go through.

    That is: states in the provider's words, their phases, and the moves between them.
    """
    found = dict(_lifecycles(provider))
    if json:
        output.as_json([_data(at, kind, lifecycle) for (at, kind), lifecycle in found.items()])
        return
    for position, lifecycle in enumerate(found.values()):
        if position:
            output.say("")
        if mermaid:
            output.say(diagram(lifecycle))
        else:
            _table(lifecycle)


def diagram(lifecycle: Lifecycle) -> str:
    """Format the lifecycle as a Mermaid state diagram with phases."""
    lines = ["---", f"title: {lifecycle.name}", "---", "stateDiagram-v2"]
    lines += (
        f'    state "{state.name} ({state.phase.value})" as {_identifier(state.name)}' for state in lifecycle.states
    )
    lines += (f"    [*] --> {_identifier(name)}" for name in lifecycle.initial)
    lines += (
        f"    {_identifier(source)} --> {_identifier(target)}"
        for source, targets in lifecycle.moves.items()
        for target in targets
    )
    lines += (f"    {_identifier(state.name)} --> [*]" for state in lifecycle.states if state.terminal)
    return "\n".join(lines)


def _identifier(state: str) -> str:
    """Return an identifier for a state; lower and upper case stay apart."""
    return _NO_IDENTIFIER.sub("_", state)


def _lifecycles(name: str | None) -> Iterator[tuple[tuple[str, str], Lifecycle]]:
    for provider in _providers(name):
        for kind, lifecycle in provider.lifecycles.items():
            yield (provider.name, kind), lifecycle


def _providers(name: str | None) -> list[type[Provider]]:
    if name is None:
        return list(PROVIDERS.values())
    if name not in PROVIDERS:
        raise InvalidInput(f"no provider {name!r}; there are: {', '.join(PROVIDERS)}", param="provider")
    return [PROVIDERS[name]]


def _data(provider: str, kind: str, lifecycle: Lifecycle) -> dict[str, Any]:
    return {
        "name": lifecycle.name,
        "provider": provider,
        "kind": kind,
        "initial": list(lifecycle.initial),
        "states": [
            {"name": state.name, "phase": state.phase.value, "terminal": state.terminal} for state in lifecycle.states
        ],
        "moves": {source: list(targets) for source, targets in lifecycle.moves.items()},
        "source": lifecycle.source,
    }


def _table(lifecycle: Lifecycle) -> None:
    output.say(lifecycle.name)
    output.table(
        ("State", "Phase", "Begins", "Ends", "May become"),
        (
            (
                state.name,
                state.phase,
                "yes" if state.name in lifecycle.initial else None,
                "yes" if state.terminal else None,
                ", ".join(lifecycle.moves.get(state.name, ())),
            )
            for state in lifecycle.states
        ),
    )
    output.say(f"source: {lifecycle.source}")
