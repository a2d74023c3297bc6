"""What a process holds while a provider answers with megabytes: a bound, and nothing of what was refused."""

import functools
import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.answering import Reply, answering
from tests.support.settings_file import write_settings

MIB = 1 << 20

#: Of memory, that a process may hold more than before it was answered so: several answers of each question under way.
BOUND_BYTES = 20 * MIB

#: Rounds of eight questions. What was refused was kept before, half a megabyte of each, and came to 50 MiB in as many.
ROUNDS = 12

TEXT = b"x" * (MIB - 64)


@functools.cache
def unpacking() -> bytes:
    """Sixty kilobytes that are 64 MiB when they are unpacked; packed by the first test that wants them."""
    return gzip.compress(b" " * (64 * MIB))


ANSWERS = {
    "a refusal of a megabyte": lambda: Reply(502, b'{"message": "%s"}' % TEXT),
    "a refusal of eight megabytes": lambda: Reply(500, TEXT * 8),
    "too much": lambda: Reply(200, TEXT * 2),
    "a page of a megabyte": lambda: Reply(200, TEXT),
    "a small one that is large when it is unpacked": lambda: Reply(200, unpacking(), {"content-encoding": "gzip"}),
    "a refusal that is large when it is unpacked": lambda: Reply(503, unpacking(), {"content-encoding": "gzip"}),
    "redirects of a megabyte": lambda: Reply(302, TEXT),
}


#: The others take their time, and are of the long run.
QUICK = ("a refusal of a megabyte", "a small one that is large when it is unpacked")


@pytest.mark.parametrize(
    "reply",
    [pytest.param(reply, id=kind, marks=() if kind in QUICK else pytest.mark.slow) for kind, reply in ANSWERS.items()],
)
def test_a_provider_that_answers_with_megabytes_takes_no_memory(
    tmp_path: Path, template: Path, reply: Callable[[], Reply]
) -> None:
    shutil.copyfile(template, tmp_path / "receipted.db")
    answer = reply()
    with answering() as provider:
        provider.answers = lambda _call: answer
        path = write_settings(tmp_path, provider.url)
        args = [sys.executable, "-m", "tests.support.asking_in_vain", str(path), str(ROUNDS)]
        done = subprocess.run(args, cwd=Path(__file__).parents[2], capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    held = json.loads(done.stdout)

    print({name: round(count / MIB, 1) for name, count in held.items()})
    assert held["most"] - held["before"] < BOUND_BYTES
