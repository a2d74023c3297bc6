"""Real processes of the command line, stopped in order whatever a test does."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, Queue

RECEIPTED = [sys.executable, "-c", "from receipted.cli.main import main; main()"]
ROOT = Path(__file__).parents[2]
#: Until whoever waits for a process gives up: a second is enough, save on a machine that is busy with other things.
SECONDS = 90


class Process:
    """One process, its standard output line by line."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child
        self._lines: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.child.stdout:
            self._lines.put(line)

    def json(self) -> dict:
        """The next JSON object on standard output."""
        text = ""
        while True:
            try:
                text += self._lines.get(timeout=SECONDS)
            except Empty:
                raise AssertionError(f"no JSON came: {text!r}, exit code {self.child.poll()}") from None
            try:
                return json.loads(text)
            except ValueError:
                continue

    def stop(self, number: int = signal.SIGTERM) -> int:
        """The exit code after a signal."""
        self.child.send_signal(number)
        return self.child.wait(SECONDS)


@contextmanager
def started(*args: str, errors: Path) -> Iterator[Process]:
    """`receipted` with these arguments, its standard error in a file; killed at the end if it still runs."""
    with errors.open("w") as stderr:
        child = subprocess.Popen([*RECEIPTED, *args], stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=ROOT)
        try:
            yield Process(child)
        finally:
            if child.poll() is None:
                child.kill()
            child.wait(SECONDS)
            child.stdout.close()


def finished(*args: str) -> subprocess.CompletedProcess[str]:
    """What `receipted` with these arguments leaves behind."""
    return subprocess.run([*RECEIPTED, *args], capture_output=True, text=True, timeout=SECONDS, cwd=ROOT, check=False)
