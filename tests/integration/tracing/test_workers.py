"""Several processes at one socket: each tells its spans by a thread of its own, and sends what is left at its end."""

from pathlib import Path

import httpx2

from receipted.cli.exits import Exit
from sandbox.config import SandboxConfig
from tests.support.collector import collecting
from tests.support.databases import PostgreSQL
from tests.support.deliveries import event, sign
from tests.support.processes import started
from tests.support.settings_file import NOWHERE, write_settings


def test_each_process_sends_its_spans_before_it_ends(tmp_path: Path, postgresql: PostgreSQL) -> None:
    database = postgresql.copy()
    key = SandboxConfig().stable_genius.signing_secret
    with collecting() as collector:
        path = write_settings(tmp_path, NOWHERE, extra=f'[tracing]\nendpoint = "{collector.url}"\nshare = 1.0')
        path.write_text(path.read_text().replace(f"sqlite:///{tmp_path / 'receipted.db'}", database.url))
        with started("--config", str(path), "web", "--workers", "2", "--json", errors=tmp_path / "err") as process:
            url = process.json()["url"]
            sent = [sign("sg", event("sg").body, secret=key) for _ in range(20)]
            answers = [
                httpx2.post(f"{url}/webhooks/stable", content=one.body, headers=dict(one.headers)) for one in sent
            ]
            assert process.stop() == Exit.DONE
    postgresql.drop(database)

    assert [answer.status_code for answer in answers] == [200] * 20
    ids = {answer.json()["id"].replace("-", "") for answer in answers}
    assert {span.trace for span in collector.named("receive")} == ids
