"""The running API keeps its own description: thousands of made-up requests, right and wrong, find nothing."""

import re
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.failures import FailureGroup

from api import idempotency
from api.application import operations
from api.schemas import CreateBody
from receipted.settings import load
from tests.support.api import Api, create, serving, wish
from tests.support.settings_file import LIVE_ACCOUNT, write_settings
from tests.support.waiting import DEADLINE_S

#: Such answers are right for requests of the right form: 422 says that they make no sense here.
_RIGHT = ["2xx", "401", "403", "404", "409", "422", "429", "502", "503"]

_UNHURRIED = "\n[api]\nrequests_per_second = 100000\nburst = 1000000\n"


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory, sandbox_url: str, template: Path) -> Iterator[Api]:
    """An API with a few payments in it, and no limit that a test could reach."""
    folder: Path = tmp_path_factory.mktemp("described")
    shutil.copyfile(template, folder / "receipted.db")
    path = write_settings(folder, sandbox_url, extra=LIVE_ACCOUNT + _UNHURRIED)
    with serving(load.load(path, {})) as api:
        yield api


class Known:
    """Ids and names that exist, so that made-up requests reach what lies behind a 404."""

    def __init__(self, api: Api) -> None:
        client = api.client()
        for account, currency, extra in (("payfield", "BDT", {}), ("stable", "USD", {}), ("banked", "GBP", {})):
            create(client, account=account, currency=currency, **({"extra": extra} if account != "payfield" else {}))
        api.payments(3, account="shop-live")
        dead = api.client().get("/v1/outbox").json()["data"]
        self.ids = {
            "payments": [row["id"] for row in client.get("/v1/payments").json()["data"]],
            "inbox": [row["id"] for row in client.get("/v1/inbox").json()["data"]],
            "outbox": [row["id"] for row in dead],
        }

    def place(self, case: Any, data: st.DataObject) -> None:
        """Half of the requests are about something that is there."""
        if not data.draw(st.booleans(), label="about something that exists"):
            return
        path = dict(case.path_parameters or {})
        among = self.ids.get(case.path.split("/")[2], [])
        if "id" in path and among:
            case.path_parameters = {**path, "id": data.draw(st.sampled_from(among))}
        if isinstance(case.body, dict) and "account" in case.body:
            accounts = st.sampled_from(["payfield", "payfield-old", "stable", "banked", "alternative", "shop-live"])
            case.body = {**case.body, "account": data.draw(accounts)}


def _fuzz(api: Api, mode: GenerationMode, examples: int) -> Counter[int]:
    """Every operation is called with so many requests; the answers by status. Fails on what is not as described."""
    document = requests.get(f"{api.base_url}/openapi.json", timeout=DEADLINE_S).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.checks.positive_data_acceptance.expected_statuses = _RIGHT
    schema.config.checks.not_a_server_error.expected_statuses = ["2xx", "4xx", "502", "503"]
    known, statuses, faults = Known(api), Counter[int](), list[str]()
    headers = {"Authorization": f"Bearer {api.key()}"}
    with requests.Session() as session:
        for found in schema.get_all_operations():
            operation = found.ok()
            try:
                strategy = operation.as_strategy(generation_mode=mode)
            except schemathesis.errors.SchemathesisError:
                if mode is GenerationMode.POSITIVE:
                    raise
                continue  # it takes nothing that could be wrong

            @hypothesis.settings(
                max_examples=examples, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
            )
            @hypothesis.seed(20)
            @hypothesis.given(case=strategy, data=st.data())
            def call(case: Any, data: st.DataObject) -> None:
                if mode is GenerationMode.POSITIVE:
                    known.place(case, data)
                if case.path == "/v1/events" and case.query:
                    case.query.pop("wait", None)
                answer = case.call(base_url=api.base_url, headers=headers, session=session)
                statuses[answer.status_code] += 1
                case.validate_response(answer, headers=headers, transport_kwargs={"session": session})

            try:
                call()
            except (FailureGroup, requests.RequestException) as fault:
                faults.append(str(fault))
    assert faults == [], "\n\n".join(faults)
    return statuses


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_nothing_is_answered_that_is_not_described(described, mode):
    statuses = _fuzz(described, mode, examples=5)

    print(sum(statuses.values()), sorted(statuses.items()))
    assert sum(statuses.values()) > 100
    assert 500 not in statuses


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_nothing_is_answered_that_is_not_described_at_length(described, mode):
    statuses = _fuzz(described, mode, examples=90)

    print(sum(statuses.values()), sorted(statuses.items()))
    assert sum(statuses.values()) > 2_500
    assert 500 not in statuses


def test_every_operation_is_described_and_nothing_else(described):
    document = requests.get(f"{described.base_url}/openapi.json", timeout=DEADLINE_S).json()
    told = {(method.upper(), path) for path, found in document["paths"].items() for method in found}

    assert document["openapi"] == "3.1.0"
    assert told == {(operation.method, operation.path) for operation in operations()}


def test_every_operation_documents_what_it_refuses(described):
    document = requests.get(f"{described.base_url}/openapi.json", timeout=DEADLINE_S).json()

    for path, found in document["paths"].items():
        for method, operation in found.items():
            assert {"400", "401", "403", "429", "500", "503"} <= set(operation["responses"]), (method, path)
            assert ("404" in operation["responses"]) >= ("{" in path), (method, path)
            assert all(answer["description"] for answer in operation["responses"].values())
            assert operation["summary"]
            for parameter in operation["parameters"]:
                assert parameter["description"], (path, parameter["name"])


def test_every_reference_of_the_description_leads_somewhere(described):
    document = requests.get(f"{described.base_url}/openapi.json", timeout=DEADLINE_S).json()

    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    found = set(references(document))
    assert found
    assert {ref.rpartition("/")[2] for ref in found} <= set(document["components"]["schemas"])


def test_the_page_names_every_operation_and_loads_nothing_from_elsewhere(described):
    answer = requests.get(f"{described.base_url}/docs", timeout=DEADLINE_S)

    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in answer.text
    assert "http://" not in answer.text.replace(described.base_url, "")
    assert [
        operation.operation_id for operation in operations() if f'id="{operation.operation_id}"' not in answer.text
    ] == []
    assert "`" not in answer.text, "a word of the API is shown as Markdown writes it"
    assert "Scope: <code>read</code>." in answer.text


def test_every_change_may_be_repeated_under_a_key_save_those_of_keys():
    changing = [operation for operation in operations() if operation.method == "POST"]

    assert {operation.operation_id for operation in changing if not operation.may_have_key} == {
        "add_key",
        "rotate_key",
        "revoke_key",
    }
    assert {operation.operation_id for operation in changing if operation.needs_key} == {
        "capture_payment",
        "create_payment",
        "refund_payment",
    }


def test_the_wish_of_the_documents_is_a_wish(described):
    made = described.client().post("/v1/payments", json=wish(), headers={"idempotency-key": "of-the-documents"})

    assert made.status_code == 200


def test_what_the_page_of_the_api_shows_is_so():
    page = Path(__file__).parents[3].joinpath("docs", "api.md").read_text()
    body = page.partition("-d '")[2].partition("'")[0]
    paths = {re.sub(r"\{\w+\}", "{id}", path) for path in re.findall(r"`(?:GET |POST )?(/v1/[\w/{}-]+)`", page)}
    named = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", page))
    code = "".join(path.read_text() for path in Path(__file__).parents[3].joinpath("api").glob("*.py"))

    assert CreateBody.model_validate_json(body, strict=True).reference == "order-18"
    assert len(paths) > 8
    assert paths <= {re.sub(r"\{\w+\}", "{id}", operation.path) for operation in operations()}
    assert [word for word in sorted(named) if word not in code] == []
    assert f"wait up to {idempotency.WAIT_S:.0f} seconds" in page.replace("waits up", "wait up")
    assert f"claimed for {idempotency.LEASE.total_seconds() / 60:.0f} minutes" in page
