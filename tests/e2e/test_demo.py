"""The demonstration with every webhook of one provider lost: what it sent never came, and all ends right."""

import re
import subprocess

import pytest

from receipted.demo.plan import PROVIDERS
from receipted.demo.results import NAMES
from tests.e2e.processes import arguments

pytestmark = pytest.mark.e2e

#: Seconds within which the command must end, right or wrong; as a rule it takes a quarter of that.
WITHIN = 100


def row(printed: str, name: str) -> list[str]:
    """The cells of the table row that begins so."""
    (found,) = re.findall(rf"^ {re.escape(name)} +(\d.*)$", printed, re.MULTILINE)
    return found.split()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_all_ends_right_without_a_single_webhook_of_a_provider(tmp_path, provider):
    """Its payments are found by asking: each as the provider has it, each paid one fulfilled once, the audit clean."""
    line = f"receipted demo --payments 40 --speed 300 --lose-all {provider} --folder {tmp_path}"

    done = subprocess.run(arguments(line), capture_output=True, text=True, timeout=WITHIN, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything is right: 0 of 40 wrong." in done.stdout
    assert " 0 faults." in done.stdout
    payments, deliveries, *_, wrong = row(done.stdout, NAMES[provider])
    assert (int(payments) > 0, deliveries, wrong) == (True, "0", "0")
    pushed, *ways = row(done.stdout, f"{NAMES[provider]}, every webhook lost")
    assert pushed == "0"
    assert sum(map(int, ways)) > 0
