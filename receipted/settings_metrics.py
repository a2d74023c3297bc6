"""The settings of metrics, and of what tells whether a process lives and is ready."""

from pydantic import Field

from receipted.secrets import Secret
from receipted.settings_accounts import Section
from receipted.settings_network import Network


class MetricsSettings(Section):
    """Metrics for Prometheus, and probes."""

    enabled: bool = Field(True, description="whether /metrics, /healthz and /readyz are answered")
    token: Secret | None = Field(
        None, description="what /metrics is asked with, as a bearer token: env:NAME or file:path, of at least 16 bytes"
    )
    allowed_networks: tuple[Network, ...] = Field(
        (), description="networks that may ask besides loopback and trusted_proxies, over plain HTTP too"
    )
    worker_host: str = Field("127.0.0.1", min_length=1, description="the address at which receipted worker answers")
    worker_port: int | None = Field(
        None, ge=0, le=65535, description="the port at which receipted worker answers; 0 takes a free one"
    )
    fresh_seconds: float = Field(
        5, ge=0, le=300, description="seconds for which figures of the database are told again before they are read"
    )
    stalled_after_seconds: float = Field(
        600, ge=30, description="seconds without a step of a loop after which the process does not live"
    )
    lag_after_seconds: float = Field(
        300, gt=0, description="age of the oldest undecided message at which a worker is not ready"
    )
