"""docs/deploying.md followed in one folder: its files, adapted in nothing but places and ports."""

import os
import re
import ssl
import subprocess
import sys

import httpx2

from providers import trial
from receipted.doctor import trial_delivery
from receipted.settings import load
from receipted.wiring import Service
from storage.ids import new_id
from tests.support import nginx, tls
from tests.support.processes import ROOT

PAGE = ROOT / "docs" / "deploying.md"
#: By the name in the mark above it: where the reader is to put it.
GIVEN = dict(
    re.findall(r"^<!-- (?:file|run): (\S+) -->\n```\w+\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
)
WRAPPER, SETTINGS, UNIT, SITE = (
    GIVEN[name]
    for name in (
        "/usr/local/bin/receipted",
        "/etc/receipted/receipted.toml",
        "/etc/systemd/system/receipted@.service",
        "/etc/nginx/conf.d/receipted.conf",
    )
)
SECONDS = 60


def adapted(text, *changes):
    """The text with each (old, new); an old that is not there is a fault of the page or of this test."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


class Deployed:
    """The page followed in one folder, up to a service and nginx before it."""

    def __init__(self, folder):
        self.folder = folder
        ports = [nginx.free_port() for _ in re.findall(r"listen ", SITE)]
        self.plain_port, self.port = ports[0], ports[2]
        self.url = f"https://localhost:{self.port}"
        self._ports = iter(ports)
        self.authority = tls.authority("an authority of tests")
        (folder / "ca.pem").write_bytes(self.authority.pem)
        self.trusted = ssl.create_default_context(cafile=str(folder / "ca.pem"))

    def make_secrets(self):
        """The page's own commands, by whoever runs the test."""
        user, group = str(os.geteuid()), str(os.getegid())
        script = adapted(
            GIVEN["secrets"],
            ("/etc/receipted", str(self.folder / "etc")),
            ("-o root -g receipted", f"-o {user} -g {group}"),
            ("-o receipted -g receipted", f"-o {user} -g {group}"),
            ("chown receipted:receipted", f"chown {user}:{group}"),
            ("python3", sys.executable),
        )
        subprocess.run(["sh", "-e", "-c", script], check=True, timeout=SECONDS)
        for name in ("shop_api_key", "shop_api_secret"):
            path = self.folder / "etc" / "secrets" / name
            path.chmod(0o600)
            path.write_text(f"what the provider gave: {name}\n")
            path.chmod(0o400)

    def configure(self):
        """The page's settings at other places, and with nobody to call."""
        text = adapted(
            SETTINGS,
            ("/var/lib/receipted", str(self.folder)),
            ("https://pay.example.com", self.url),
            ("[service]\n", "[service]\nlisten_port = 0\n"),
            ('provider = "banked"\n', 'provider = "banked"\nbase_url = "https://127.0.0.1:9"\n'),
        )
        self.config = self.folder / "etc" / "receipted.toml"
        self.config.write_text(f"{text}\n[reconciliation]\nevery_seconds = 0\n")
        self.service = Service(load.load(self.config, {}))

    def site(self, direct):
        """The page's site before the service at that URL."""
        chain, key = tls.served(self.folder / "tls", "localhost", self.authority)
        text = adapted(
            SITE,
            ("127.0.0.1:8000", direct.removeprefix("http://")),
            ("server_name pay.example.com", "server_name localhost"),
            ("/etc/letsencrypt/live/pay.example.com/fullchain.pem", chain),
            ("/etc/letsencrypt/live/pay.example.com/privkey.pem", key),
            ("/var/www/html", str(self.folder / "html")),
        )
        return re.sub(r"listen (\[::\]:)?(80|443)\b", lambda _: f"listen 127.0.0.1:{next(self._ports)}", text)

    def typed(self, *args):
        """The command for people with these arguments: what it printed."""
        receipted = f"{sys.executable} -c 'from receipted.cli.main import main; main()'"
        script = adapted(
            WRAPPER,
            ("sudo -u receipted -- /opt/receipted/venv/bin/receipted", receipted),
            ("/etc/receipted/receipted.toml", str(self.config)),
        )
        command = ["sh", "-c", script, "receipted", *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, cwd=ROOT, check=False)
        assert done.returncode == 0, done
        return done.stdout

    def browser(self, **options):
        """Somebody who comes from outside; not from where nginx does."""
        transport = httpx2.HTTPTransport(verify=self.trusted, local_address="127.0.0.2")
        return httpx2.Client(base_url=self.url, transport=transport, timeout=SECONDS, **options)

    def delivery(self):
        """The body and headers of a signed trial."""
        account, body, now = self.service.accounts["shop"], trial.body(new_id()), self.service.clock()
        key = trial_delivery.active_key(account, now)
        return body, {"content-type": "application/json", **trial_delivery.sign(account, key, body, now)}
