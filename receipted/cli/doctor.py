"""`receipted doctor`: check that deliveries reach the public URL."""

import ssl
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from receipted.cli import output
from receipted.cli.exits import Exit, InvalidInput
from receipted.cli.options import AsJson, open_service, require_account
from receipted.doctor.examination import examine
from receipted.doctor.probes import Finding, Verdict

_VERDICT_LABELS: Final = {Verdict.OK: "ok", Verdict.WARNING: "look", Verdict.FAULT: "FAULT", Verdict.SKIPPED: "skipped"}
_LABEL_WIDTH: Final = max(map(len, _VERDICT_LABELS.values()))


def doctor(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="URL",
            help="The public URL, as providers reach it; else service.public_url.",
            show_default=False,
        ),
    ] = None,
    account: Annotated[
        list[str] | None, typer.Option("--account", help="Only this account's; may be repeated.", show_default=False)
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option("--ca", metavar="FILE", help="Trust this authority too: a PEM file.", show_default=False),
    ] = None,
    json: AsJson = False,
) -> None:
    """Send a signed trial delivery through the public URL, and say what is wrong.

    Looks at the name, the certificate, redirects, the probe of a registration, whether body and headers arrive
    unchanged, the clocks, the largest body, the time to the answer and the time to the decision. Run it where the
    service's settings and database are; a trial stays in the inbox, is about no payment, and nothing follows from it.

    Exit 1 where a provider's deliveries would suffer.
    """
    with open_service(context) as service:
        for name in account or ():
            require_account(service, name)
        found = []
        where = url or service.settings.service.public_url
        for finding in examine(service, where, account or list(service.accounts), _trusted(ca)):
            found.append(finding)
            if not json:
                for line in _lines(finding):
                    output.say(line)
    faults = sum(finding.verdict is Verdict.FAULT for finding in found)
    warnings = sum(finding.verdict is Verdict.WARNING for finding in found)
    if json:
        output.as_json({"url": where, "faults": faults, "warnings": warnings, "findings": [asdict(f) for f in found]})
    elif faults:
        output.say(f"deliveries would not all come through: {faults} to mend")
    else:
        output.say("a provider's deliveries come through" + (f"; {warnings} to look at" if warnings else ""))
    if faults:
        raise typer.Exit(Exit.FAILED)


def _lines(finding: Finding) -> Iterator[str]:
    about = f"{finding.account} " if finding.account else ""
    code = f" ({finding.code})" if finding.code else ""
    label = _VERDICT_LABELS[finding.verdict]
    yield f"{label:<{_LABEL_WIDTH}}  {about}{finding.check}: {output.shown(finding.says)}{code}"
    if finding.remedy:
        yield f"{'':<{_LABEL_WIDTH}}  -> {output.shown(finding.remedy)}"


def _trusted(ca: Path | None) -> ssl.SSLContext:
    trusted = ssl.create_default_context()
    if ca is not None:
        try:
            trusted.load_verify_locations(ca)
        except (OSError, ssl.SSLError):
            raise InvalidInput(f"{ca} is no file of certificates in PEM form", param="ca") from None
    return trusted
