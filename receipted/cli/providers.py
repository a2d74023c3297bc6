"""`receipted providers`: which there are, what each can, and what proves its page."""

from pathlib import Path
from typing import Annotated, Any

import typer

from providers.catalogue import with_pages
from providers.contract import Provider
from providers.engine import page
from providers.engine.pointers import InvalidPage
from providers.engine.proof import PageProof, prove
from providers.engine.provider import DeclaredProvider, declared
from receipted.cli import output
from receipted.cli.exits import InvalidInput, example
from receipted.cli.options import AsJson, load_settings, subcommands
from receipted.settings.load import settings_path

app = subcommands("List the providers, and prove their pages from outside.")

Named = Annotated[str, typer.Argument(metavar="PROVIDER|PAGE", help="Its name, or the path of a page.")]


@app.command("list", epilog=example("receipted providers list", "receipted providers list --json"))
def list_providers(context: typer.Context, json: AsJson = False) -> None:
    """List the providers that an account may be at; further ones by the settings."""
    rows = [_row(provider) for provider in _known(context).values()]
    if json:
        output.as_json(rows)
        return
    head = ("Provider", "Kinds", "Calls", "Page", "Proof")
    output.table(head, [(r["name"], ", ".join(r["kinds"]), ", ".join(r["calls"]), r["page"], r["proof"]) for r in rows])


@app.command(epilog=example("receipted providers show stable_genius"))
def show(context: typer.Context, provider: Named, json: AsJson = False) -> None:
    """Show a provider: its calls, secrets and options, and where its page is from."""
    kind = _found(context, provider)
    options = {
        name: {"default": field.get_default(), "description": field.description or ""}
        for name, field in kind.options_type.model_fields.items()
    }
    about: dict[str, Any] = {
        **_row(kind),
        "base_url": kind.default_base_url,
        "secrets": list(kind.secret_names),
        "deliveries": kind.authentication.words if kind.authentication else "unsigned",
        "digest": kind.source.digest if issubclass(kind, DeclaredProvider) else None,
    }
    if json:
        output.as_json({**about, "options": options})
        return
    output.fields({name: ", ".join(value) if isinstance(value, list) else value for name, value in about.items()})
    output.say("")
    output.table(
        ("Option", "Default", "Description"),
        [(name, told["default"], told["description"]) for name, told in options.items()],
    )


@app.command(epilog=example("receipted providers check pages/acme.toml"))
def check(context: typer.Context, provider: Named, json: AsJson = False) -> None:
    """Check a page against its vectors and samples; exit 1 where it is not proved.

    Vectors are signed by somebody else, samples are official bodies with what a person read in them.
    """
    kind = _found(context, provider)
    if not issubclass(kind, DeclaredProvider):
        raise InvalidInput(f"{provider} is code and has no page", param="provider")
    proof = prove(kind.with_options())
    if json:
        output.as_json(_proof_data(kind, proof))
    else:
        for fault in proof.faults:
            output.say(f"wrong: {fault}")
        for words in proof.unproved:
            output.say(f"unproved: {words}")
        output.say(f"{kind.name}: {_words(proof)}")
    if not proof.is_proved:
        raise typer.Exit(1)


def _known(context: typer.Context) -> dict[str, type[Provider]]:
    """Return the providers of the settings; the built-in ones where there are none."""
    if settings_path(context.find_root().params.get("config")) is None:
        return with_pages((), Path())
    return dict(load_settings(context).provider_types())


def _found(context: typer.Context, name: str) -> type[Provider]:
    path = Path(name)
    if path.suffix == ".toml":
        try:
            return declared(page.read(path))
        except InvalidPage as fault:
            raise InvalidInput(fault.message, param="provider") from None
    known = _known(context)
    if name not in known:
        raise InvalidInput(f"no provider {name!r}; there are: {', '.join(known)}", param="provider")
    return known[name]


def _row(provider: type[Provider]) -> dict[str, Any]:
    made = provider(provider.options_type())
    calls = [capability.value for capability in made.capabilities()]
    if not isinstance(made, DeclaredProvider):
        return {
            "name": made.name,
            "kinds": list(made.lifecycles),
            "calls": calls,
            "page": "code",
            "proof": "its own tests",
        }
    return {
        "name": made.name,
        "kinds": list(made.lifecycles),
        "calls": calls,
        "page": made.source.name,
        "proof": _words(prove(made)),
    }


def _words(proof: PageProof) -> str:
    evidence = f"{proof.vectors} vectors, {proof.samples} samples"
    if proof.faults:
        return f"wrong: {len(proof.faults)} of {evidence} contradict it"
    return f"{'proved' if proof.is_proved else 'not proved'} by {evidence}; {len(proof.unproved)} points unproved"


def _proof_data(kind: type[DeclaredProvider], proof: PageProof) -> dict[str, Any]:
    return {
        "provider": kind.name,
        "digest": kind.source.digest,
        "is_proved": proof.is_proved,
        "faults": list(proof.faults),
        "unproved": list(proof.unproved),
        "vectors": proof.vectors,
        "samples": proof.samples,
    }
