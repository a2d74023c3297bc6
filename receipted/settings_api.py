"""The settings of the REST API."""

from pydantic import Field

from receipted.settings_accounts import Section


class ApiSettings(Section):
    """The REST API for programs of yours."""

    enabled: bool = Field(True, description="whether /v1, /openapi.json and /docs are served")
    requests_per_second: float = Field(
        50, ge=0.001, le=100_000, description="requests a second that each API key may send, to all processes together"
    )
    burst: int = Field(200, ge=1, le=1_000_000, description="requests that it may send at once after a rest")
    waiting: int = Field(100, ge=1, description="how many readers may wait for events at once, per process")
