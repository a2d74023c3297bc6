"""What deploy/ starts exists, is refused nothing, and may do little: image, compose file and chart."""

import json
import re
import shlex
import tomllib

import pytest
import yaml

from receipted import runtime
from receipted.cli import processes
from receipted.settings.load import PREFIX, load
from receipted.settings.models import ServiceSettings
from tests.repo.commands_in_docs import problem
from tests.repo.tree import PYPROJECT, ROOT

DEPLOY = ROOT / "deploy"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
CHART = DEPLOY / "chart"
TEMPLATES = sorted((CHART / "templates").iterdir())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
UID = 10001

_EXPRESSION = re.compile(r"\{\{ \.(\w+)((?:\.\w+)+)((?: \| \w+)*) \}\}")
_SETTINGS = """
[service]
public_url = "https://pay.example.com"
[[service.token_keys]]
id = "test"
secret = "env:TOKEN_KEY"
[[sinks]]
name = "shop"
url = "https://shop.example.com"
secrets = ["env:SINK_KEY"]
[accounts.shop]
provider = "banked"
secrets = { api_key = "env:API_KEY", api_secret = "env:API_SECRET" }
webhook_keys = [{ id = "test", secret = "env:WEBHOOK_KEY" }]
"""
_SECRETS = {name: f"{name}-of-enough-bytes" for name in ("TOKEN_KEY", "API_KEY", "API_SECRET", "WEBHOOK_KEY")}
_SECRETS["SINK_KEY"] = "whsec_c2hvcC1rZXktb2YtdGhlLWUyZS10ZXN0cy0wMDE="


def rendered(path):
    """The template's documents for the chart's own values; it uses nothing of Helm but values, toJson and quote."""
    known = {
        "Values": VALUES,
        "Release": {"Name": "receipted"},
        "Chart": yaml.safe_load((CHART / "Chart.yaml").read_text()),
    }

    def value(found):
        at = known[found[1]]
        for part in found[2][1:].split("."):
            at = at[part]
        for each in found[3].replace(" ", "").split("|")[1:]:
            at = {"toJson": json.dumps, "quote": json.dumps}[each](at)
        return str(at)

    text = _EXPRESSION.sub(value, path.read_text())
    assert "{{" not in text
    return list(yaml.safe_load_all(text))


def pods():
    """Each pod that the chart makes, with the name of what makes it."""
    made = [document for path in TEMPLATES for document in rendered(path) if "template" in document["spec"]]
    return {document["metadata"]["name"]: document["spec"]["template"]["spec"] for document in made}


def compose():
    """The services of the compose file, with its variables replaced."""
    text = (DEPLOY / "compose.yaml").read_text()
    return yaml.safe_load(re.sub(r"\$\{(\w+)[^}]*\}", r"\1", text))["services"]


def ours():
    return {name: service for name, service in compose().items() if service["image"] == "receipted"}


def settings(tmp_path, variables):
    """The settings with the variables of a container over them; raises for one that is none."""
    path = tmp_path / "receipted.toml"
    path.write_text(_SETTINGS)
    return load(path, {**_SECRETS, **variables})


def image_variables():
    return dict(re.findall(rf"({PREFIX}\w+)=(\S+)", CONTAINERFILE.partition("\nENV ")[2].partition("\nUSER")[0]))


# the image


def test_the_image_runs_without_rights_and_starts_what_exists():
    last = CONTAINERFILE.rpartition("\nFROM ")[2]
    (entry,), (command,) = (
        re.findall(r"^ENTRYPOINT (.+)$", last, re.MULTILINE),
        re.findall(r"^CMD (.+)$", last, re.MULTILINE),
    )

    assert re.search(rf"^USER {UID}:{UID}$", last, re.MULTILINE)
    assert problem(shlex.join([*json.loads(entry), *json.loads(command)]), is_whole=True) == ""
    assert "HEALTHCHECK" in last
    assert "COPY --from=build /opt/receipted /opt/receipted" in last
    assert re.findall(r"^COPY (?!--)(.+) \S+$", last, re.MULTILINE) == []  # no source in it


def test_the_image_is_built_of_files_that_exist():
    named = {
        word for line in re.findall(r"^COPY (?!--)(.+) \S+$", CONTAINERFILE, re.MULTILINE) for word in line.split()
    }
    minor = ".".join(re.findall(r"FROM \S+python:(\d+)\.(\d+)-", CONTAINERFILE)[0])

    assert [word for word in named if not (ROOT / word).exists()] == []
    assert PYPROJECT["project"]["requires-python"] == f">={minor}"
    assert len(set(re.findall(r"^FROM (\S+)", CONTAINERFILE, re.MULTILINE))) == 1


def test_nothing_private_is_sent_to_the_builder():
    ignored = set((ROOT / ".dockerignore").read_text().splitlines())

    assert {".git", ".venv", "var", "secrets", "receipted.toml"} <= ignored


def test_the_image_is_reached_from_outside_of_its_loopback(tmp_path):
    variables = {name: value for name, value in image_variables().items() if name != f"{PREFIX}CONFIG"}

    assert settings(tmp_path, variables).service.listen_host == "0.0.0.0"  # noqa: S104 - of a container


# the compose file


def test_the_services_start_what_exists_in_the_order_that_is_right():
    services = ours()

    assert set(services) == {"migrate", "web", "worker"}
    for name, service in services.items():
        assert problem(shlex.join(["receipted", *service["command"]]), is_whole=True) == "", name
    assert services["migrate"]["depends_on"]["database"]["condition"] == "service_healthy"
    for name in ("web", "worker"):
        assert services[name]["depends_on"]["migrate"]["condition"] == "service_completed_successfully"


def test_no_service_may_write_or_gain_rights():
    for service in ours().values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["user"] == "RECEIPTED_USER"
        assert all(volume.endswith(":ro") for volume in service["volumes"])


def test_the_variables_of_the_services_are_settings(tmp_path):
    for name, service in ours().items():
        found = settings(tmp_path, service["environment"])
        assert found.service.database.startswith("postgresql://"), name
        assert [str(network) for network in found.service.trusted_proxies] == ["172.30.0.1/32"]
        assert found.metrics.worker_port == (9101 if name == "worker" else None)


def test_only_the_host_reaches_the_services():
    assert [port for service in compose().values() for port in service.get("ports", ())] == ["127.0.0.1:8000:8000"]


# the chart


def test_the_chart_is_of_this_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert chart["version"] == chart["appVersion"] == PYPROJECT["project"]["version"]
    assert VALUES["image"].endswith(f":{chart['appVersion']}")


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_the_template_gives_objects_with_a_name_each(path):
    for document in rendered(path):
        assert {"apiVersion", "kind", "metadata", "spec"} <= set(document)
        assert document["metadata"]["labels"]["app.kubernetes.io/instance"] == "receipted"


def test_the_service_finds_the_pods_of_web():
    web, service = rendered(CHART / "templates" / "web.yaml")

    assert service["spec"]["selector"] == web["spec"]["template"]["metadata"]["labels"]
    assert web["spec"]["selector"]["matchLabels"] == web["spec"]["template"]["metadata"]["labels"]


@pytest.mark.parametrize("name", pods())
def test_no_pod_may_write_or_gain_rights(name):
    pod = pods()[name]
    (container,) = pod["containers"]

    assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, UID)
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("name", pods())
def test_a_pod_starts_what_exists_with_settings_that_exist(tmp_path, name):
    (container,) = pods()[name]["containers"]
    given = {each["name"]: each.get("value", "postgresql://receipted@database/receipted") for each in container["env"]}
    found = settings(tmp_path, given)

    assert problem(shlex.join(["receipted", *container["args"]]), is_whole=True) == ""
    assert [str(network) for network in found.service.trusted_proxies] == VALUES["trustedProxies"]
    for kind, path in (("livenessProbe", "healthz"), ("readinessProbe", "readyz")) if "migrate" not in name else ():
        port = found.metrics.worker_port or found.service.listen_port
        assert f"127.0.0.1:{port}/{path}'" in container[kind]["exec"]["command"][2]


def test_an_end_is_waited_for_longer_than_the_processes_take():
    own = ServiceSettings().stop_timeout_seconds + processes._CHILD_GRACE_S + runtime.THREADS_GRACE_S
    waits = [pod["terminationGracePeriodSeconds"] for pod in pods().values()]
    waits += [int(service["stop_grace_period"].removesuffix("s")) for service in ours().values()]

    assert min(waits) > own


def test_the_settings_of_this_test_can_work(tmp_path):
    assert tomllib.loads(_SETTINGS)["accounts"]
    assert settings(tmp_path, {}).accounts["shop"].provider == "banked"
