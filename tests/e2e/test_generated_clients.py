"""The documented first payment, made with clients that generators make from the API's description."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from storage.ids import new_id
from tests.e2e.deployment import Deployment
from tests.repo.tree import ROOT

pytestmark = pytest.mark.e2e

#: Kept from run to run, and no part of the tree. Their versions are named, so that a run can be had again.
_TOOLS = ROOT / "var" / "client-tools"
_PYPI = ("openapi-python-client==0.29.1", "attrs==26.1.0", "httpx==0.28.1")
_NPM = ("openapi-typescript@7.13.0", "openapi-fetch@0.17.0", "typescript@5.9.3")

#: Seconds for one command: installing takes longest.
_TIMEOUT_S = 300

_PYTHON = """
import json
import sys

from receipted_client import AuthenticatedClient
from receipted_client.api.payments import create_payment, get_payment, list_payments
from receipted_client.models import CreateBody, CreateBodyExtra, PaymentList, PaymentAnswer

url, token, key = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=token)
body = CreateBody(**FIELDS, extra=CreateBodyExtra.from_dict(EXTRA))
made = create_payment.sync(client=client, body=body, idempotency_key=key)
assert isinstance(made, PaymentAnswer), made
reference: str | None = made.reference
checkout: str | None = made.checkout_url
shown = get_payment.sync(made.id, client=client)
assert isinstance(shown, PaymentAnswer), shown
found = list_payments.sync(client=client, reference=body.reference, account=body.account)
assert isinstance(found, PaymentList), found
ids = [str(each.id) for each in found.data]
print(json.dumps({"id": str(shown.id), "reference": reference, "checkout": checkout, "listed": ids}))
"""

_TYPESCRIPT = """
import createClient from "openapi-fetch";
import type { components, paths } from "./receipted.d.ts";

declare const process: { argv: string[] };
const [, , url, token, key] = process.argv as [string, string, string, string, string];
const api = createClient<paths>({ baseUrl: url, headers: { authorization: `Bearer ${token}` } });

const body: components["schemas"]["CreateBody"] = BODY;
// @ts-expect-error: what the service requires is required
const lacking: components["schemas"]["CreateBody"] = { account: "payfield", amount_minor: 1, reference: "r" };
// @ts-expect-error: what the service does not know is not known
const unknown: components["schemas"]["CreateBody"] = { ...body, amounts: 1 };

const made = await api.POST("/v1/payments", { params: { header: { "Idempotency-Key": key } }, body });
if (made.error) throw new Error(`${made.error.error.code}: ${made.error.error.message}`);
const object: "payment" = made.data.object;
const reference: string | null = made.data.reference;
const checkout: string | null = made.data.checkout_url;
const shown = await api.GET("/v1/payments/{id}", { params: { path: { id: made.data.id } } });
if (shown.error) throw new Error(shown.error.error.message);
const query = { reference: body.reference, account: body.account };
const found = await api.GET("/v1/payments", { params: { query } });
if (found.error) throw new Error(found.error.error.message);
console.log(JSON.stringify({ id: shown.data.id, reference, checkout, listed: found.data.data.map((each) => each.id) }));
"""


def _documented() -> dict[str, Any]:
    """The body of the first payment, as docs/api.md shows it."""
    page = (ROOT / "docs" / "api.md").read_text()
    found = re.search(r"-d '(\{.*?\})'", page, re.DOTALL)
    assert found, "docs/api.md shows the body of the first payment"
    body: dict[str, Any] = json.loads(found[1])
    return body


def _run(*command: str | Path, folder: Path, is_needed: bool = True) -> str:
    """What the command prints; a tool that cannot be had skips the test, any other failure fails it."""
    path = f"{_TOOLS / 'python' / 'bin'}:{os.environ['PATH']}"  # noqa: TID251 - the tools call each other
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
        env={**os.environ, "PATH": path},  # noqa: TID251 - as above
    )
    said = f"{' '.join(map(str, command))}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
    if done.returncode and not is_needed:
        pytest.skip(f"the tool cannot be had here: {said}")
    assert done.returncode == 0, said
    return done.stdout


@pytest.fixture(scope="module")
def python_tools() -> Path:
    """An environment with the generator for Python, apart from ours."""
    home = _TOOLS / "python"
    mark = home / "installed"
    if not mark.exists() or mark.read_text() != repr(_PYPI):
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        _run(sys.executable, "-m", "venv", home, folder=home, is_needed=False)
        _run(home / "bin" / "python", "-m", "pip", "install", "--quiet", *_PYPI, folder=home, is_needed=False)
        mark.write_text(repr(_PYPI))
    return home / "bin"


@pytest.fixture(scope="module")
def typescript_tools() -> Path:
    """A folder with the generator for TypeScript and the compiler."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("there is no npm here: apt-get install nodejs npm")
    home = _TOOLS / "typescript"
    mark = home / "installed"
    if not mark.exists() or mark.read_text() != repr(_NPM):
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        (home / "package.json").write_text('{"private": true, "type": "module"}')
        _run("npm", "install", "--no-audit", "--no-fund", "--silent", *_NPM, folder=home, is_needed=False)
        mark.write_text(repr(_NPM))
    return home


def _described(deployment: Deployment, folder: Path) -> Path:
    file = folder / "openapi.json"
    file.write_text(deployment.api.get("/openapi.json").raise_for_status().text)
    return file


def _call(deployment: Deployment) -> list[str]:
    """What a client is told: where, as whom, and under which name of the call."""
    return [deployment.url, deployment.api.headers["authorization"].removeprefix("Bearer "), new_id()]


def _check(deployment: Deployment, printed: str) -> None:
    """What the client had is what is known here."""
    said = json.loads(printed)
    kept = deployment.payment(said["id"])
    wanted = _documented()

    assert (kept.account, kept.amount_minor, kept.currency) == (
        wanted["account"],
        wanted["amount_minor"],
        wanted["currency"],
    )
    assert kept.reference == wanted["reference"] == said["reference"]
    assert said["checkout"].startswith("http")
    assert said["listed"] == [kept.id]


def test_a_generated_python_client_makes_the_first_payment(deployment, python_tools, tmp_path):
    """mypy --strict finds nothing in the call, and the call is done."""
    described, config = _described(deployment, tmp_path), tmp_path / "config.yaml"
    config.write_text("post_hooks: []\n")
    _run(
        *(python_tools / "openapi-python-client", "generate", "--path", described, "--meta", "none"),
        *("--config", config, "--output-path", tmp_path / "receipted_client"),
        folder=tmp_path,
    )
    fields = _documented()
    extra = fields.pop("extra")
    arguments = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    script = tmp_path / "first.py"
    script.write_text(_PYTHON.replace("**FIELDS", arguments).replace("EXTRA", repr(extra)))

    checked = (sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=")
    _run(*checked, "--python-executable", python_tools / "python", script, folder=tmp_path)
    _check(deployment, _run(python_tools / "python", script, *_call(deployment), folder=tmp_path))


def test_a_generated_typescript_client_makes_the_first_payment(deployment, typescript_tools, tmp_path):
    """The strict compiler takes the documented body and nothing that lacks or adds a field; the call is done."""
    (tmp_path / "node_modules").symlink_to(typescript_tools / "node_modules")
    (tmp_path / "package.json").write_text('{"private": true, "type": "module"}')
    tools = tmp_path / "node_modules" / ".bin"
    described = _described(deployment, tmp_path)
    _run(tools / "openapi-typescript", described, "-o", tmp_path / "receipted.d.ts", folder=tmp_path)
    (tmp_path / "first.ts").write_text(_TYPESCRIPT.replace("BODY", json.dumps(_documented())))

    strict = ("--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck")
    _run(tools / "tsc", *strict, "first.ts", folder=tmp_path)
    _check(deployment, _run("node", "first.js", *_call(deployment), folder=tmp_path))
