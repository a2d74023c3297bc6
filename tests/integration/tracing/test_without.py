"""Traces are an extra: without it everything else works, and asking for them is refused in words.

FastAPI needs the interface of OpenTelemetry, which does nothing by itself; the extra is what collects and sends.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

_BLOCKED = """
import sys
from importlib.abc import MetaPathFinder

class Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter")) or name.partition(".")[0] == "requests":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
"""

_WORKS = """
from pathlib import Path
from tests.support.deliveries import event
from tests.support.serving import eventually, serving, settings
with serving(settings(Path(sys.argv[1]), tick=0.05), with_work=True) as served:
    assert served.post(event("sg")).status == 200
    eventually(lambda: [row.status for row in served.rows()] == ["decided"])
print("decided")
"""

_ASKED = """
from receipted.errors import ConfigurationError
from receipted.settings.load import parse
try:
    parse({"tracing": {"endpoint": "https://collector.example/v1/traces"}})
except ConfigurationError as fault:
    print(*(found for found in fault.faults if found.setting == "tracing.endpoint"), sep="\\n")
"""


def _run(program: str, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-c", _BLOCKED + program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_everything_works_without_the_extra(tmp_path: Path) -> None:
    assert _run(_WORKS, str(tmp_path)).splitlines()[-1] == "decided"


def test_asking_for_traces_without_the_extra_names_it() -> None:
    assert _run(_ASKED) == (
        "tracing.endpoint is set, and OpenTelemetry is missing; install receipted with the extra tracing: "
        'pip install "receipted[tracing]"\n'
    )
