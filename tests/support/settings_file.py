"""A settings file for tests: a SQLite file, one Python sink, and an account at each provider that a sandbox plays."""

import base64
from pathlib import Path

from receipted.cli.sandbox import sandbox_accounts
from sandbox.config import SandboxConfig

SINK_SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()

#: Nothing listens there: what does not ask a provider never finds out.
NOWHERE = "http://127.0.0.1:9"

#: More settings: every account that a sandbox plays is a test account, and this one is not.
LIVE_ACCOUNT = """
[accounts.shop-live]
provider = "payfield"
base_url = "http://127.0.0.1:9/payfield"
secrets = { api_key = "plain:a-live-api-key-000001", api_secret = "plain:a-live-api-secret-00001" }
options = { allow_loopback_http = true }

[[accounts.shop-live.webhook_keys]]
id = "live"
secret = "plain:a-live-webhook-secret-0001"
"""


def write_settings(folder: Path, sandbox_url: str = NOWHERE, *, port: int = 0, extra: str = "") -> Path:
    """The path of a settings file in the folder, beside where its database will be."""
    head = f"""
[service]
database = "sqlite:///{folder / "receipted.db"}"
public_url = "http://127.0.0.1:8000"
listen_port = {port}
development = true

[[service.token_keys]]
id = "test"
secret = "plain:a-token-key-of-enough-bytes"

[[service.audit_keys]]
id = "test"
secret = "plain:an-audit-key-of-enough-bytes"

[worker]
tick_seconds = 0.05

[[sinks]]
name = "shop"
kind = "http"
url = "http://127.0.0.1:9/fulfilment"
secrets = ["plain:{SINK_SECRET}"]
"""
    played = [account.toml() for account in sandbox_accounts(sandbox_url, SandboxConfig())]
    path = folder / "receipted.toml"
    path.write_text("\n\n".join([head, *played, extra]))
    return path
