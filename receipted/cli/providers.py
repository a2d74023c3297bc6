"""`receipted providers`: which there are, what each can, and what proves its page."""

import json as json_text
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from providers.catalogue import with_pages
from providers.contract import Provider
from providers.engine import page
from providers.engine.pointers import InvalidPage
from providers.engine.proof import PageProof, prove
from providers.engine.provider import DeclaredProvider, declared
from receipted.cli import output
from receipted.cli.exits import InvalidInput, example
from receipted.cli.options import AsJson, load_settings, parse_pairs, subcommands
from receipted.settings.load import settings_path

app = subcommands("List the providers, and prove their pages from outside.")


class PageSignature(StrEnum):
    """Scheme by which deliveries are signed, of a first page."""

    HMAC = "hmac"
    STANDARD_WEBHOOKS = "standard_webhooks"
    NONE = "none"


class PageUnit(StrEnum):
    """Unit of the amounts of a first page."""

    MINOR = "minor"
    MAJOR = "major"


_NAME: Final = re.compile("[a-z][a-z0-9_]{0,31}")
_STATES: Final[Mapping[str, str]] = {"pending": "open", "paid": "paid!", "failed": "failed!", "expired": "expired!"}

_SIGNATURES: Final = {
    PageSignature.HMAC: """[signature] # docs/adding-a-provider.md has the other forms
mode = "hmac"
words = "HMAC-SHA256 over the exact body"
header = "X-Signature"
signed = ["{body}"]

[delivery] # what tells a redelivery
key = [{ parts = ["/id"] }]""",
    PageSignature.STANDARD_WEBHOOKS: """[signature] # the webhook key is whsec_..., or the public key whpk_...
mode = "standard_webhooks"

[delivery]
header = "webhook-id\"""",
    PageSignature.NONE: """[signature] # what is not signed is never believed: it is a reason to ask
mode = "none\"""",
}

_FIRST_PAGE: Final = """# What the provider's words mean; each pointer and word is to be put right by its documentation.

[provider]
name = "{name}"
title = {title}
source = "the addresses of its documentation"
base_url = {base_url}
secrets = ["api_key"]
default_kind = "payment"
how_to_register = "add the URL in its dashboard"

[money]
unit = "{unit}"

{signature}

[events]
type = "/type"

[[events.rule]]
as = "{means}"
when = {{ "/data/id" = "exists" }}
object = "/data"
kind = "payment"

[kind.payment]
id = "/id"
status = "/status"
amount = "/amount"
currency = "/currency"
reference = "/reference" # your own id, as the provider echoes it
initial = [{initial}]
states = {{ {states} }} # ! where nothing is expected afterwards
moves = {{ {moves} }}

[calls]
bearer = "{{secrets.api_key}}"

[calls.create]
path = "/payments"
body = "json"
headers = {{ idempotency-key = "{{key}}" }} # is_idempotent = false where the provider takes no key
fields = {{ amount = "{{amount}}", currency = "{{currency}}", reference = "{{reference}}" }}

[calls.fetch]
path = "/payments/{{ref}}"

[errors]
code = "/code"
message = "/message"

# [[vector]] signed by somebody else, and [[sample]] for each state: docs/adding-a-provider.md
"""

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


@app.command(
    epilog=example(
        "receipted providers new acme --base-url https://api.acme.com",
        "receipted providers new acme --base-url https://api.acme.com --signature standard_webhooks",
        "receipted providers new acme --base-url https://api.acme.com --state new=open --state done=paid",
    )
)
def new(
    name: Annotated[str, typer.Argument(help="What accounts call it: small letters, digits and _.")],
    base_url: Annotated[str, typer.Option("--base-url", help="Where its API is.")],
    title: Annotated[str | None, typer.Option("--title", help="Its name for people.")] = None,
    signature: Annotated[
        PageSignature, typer.Option("--signature", help="How it signs what it delivers.")
    ] = PageSignature.HMAC,
    unit: Annotated[PageUnit, typer.Option("--unit", help="Of its amounts: 1000 or 10.00 for ten euros.")] = (
        PageUnit.MINOR
    ),
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Its word and our phase, such as paid=paid; ! ends asking.")
    ] = None,
    folder: Annotated[Path, typer.Option("--folder", help="Where the page is written.")] = Path("pages"),
    json: AsJson = False,
) -> None:
    """Write a first page for a provider, to be filled in and proved.

    The page loads, and `receipted providers check` says what is unproved: all of it, until there are samples.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"{name!r} is no name: small letters, digits and _, a letter first", param="name")
    states = parse_pairs(state or [], option="state") or _STATES
    text = first_page(name, title or name.replace("_", " ").title(), base_url, signature, unit, states)
    path = folder / f"{name}.toml"
    try:
        declared(page.parse(text, path.name, folder))
    except InvalidPage as fault:
        raise InvalidInput(fault.message, param="state") from None
    if path.exists():
        raise InvalidInput(f"{path} exists, and is left as it is", param="name")
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if json:
        output.as_json({"page": str(path), "setting": f"file:{path}"})
        return
    output.say(f"{path} is written: put its words and pointers right, and official bodies into {folder / 'samples'}")
    output.say(f'providers = ["file:{path}"]  # in the settings')
    output.say(f"receipted providers check {path}")


def first_page(
    name: str, title: str, base_url: str, signature: PageSignature, unit: PageUnit, states: Mapping[str, str]
) -> str:
    """Return the text of a first page: what differs least between providers."""
    words = list(states)
    going = [word for word in words if not states[word].endswith("!")]
    moves = {word: words[words.index(word) + 1 :] for word in going}
    last = [word for word in going if not moves[word]]  # nothing follows it here: then asking ends
    phases = {word: phase + ("!" if word in last else "") for word, phase in states.items()}
    return _FIRST_PAGE.format(
        name=name,
        title=_quoted(title),
        base_url=_quoted(base_url),
        unit=unit.value,
        signature=_SIGNATURES[signature],
        means="ask" if signature is PageSignature.NONE else "state",
        initial=_quoted(words[0]),
        states=", ".join(f"{_quoted(word)} = {_quoted(phase)}" for word, phase in phases.items()),
        moves=", ".join(
            f"{_quoted(word)} = [{', '.join(map(_quoted, targets))}]" for word, targets in moves.items() if targets
        ),
    )


def _quoted(text: str) -> str:
    return json_text.dumps(text, ensure_ascii=False)


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
