"""The settings of the console."""

from pydantic import Field

from receipted.settings_accounts import Section


class ConsoleSettings(Section):
    """The pages for people."""

    enabled: bool = Field(True, description="whether /console is served")
    idle_seconds: int = Field(28_800, ge=60, le=604_800, description="seconds without use after which a session ends")
    longest_seconds: int = Field(
        86_400, ge=60, le=2_592_000, description="seconds after which a session ends however much it is used"
    )
    attempts_per_name: int = Field(
        10,
        ge=1,
        le=1000,
        description="log-ins with one name that may fail within the window, from one network or in one known browser",
    )
    attempts_per_network: int = Field(
        50,
        ge=1,
        le=100_000,
        description="log-ins from one network (IPv4 /24, IPv6 /56) that may fail within the window",
    )
    attempts_everywhere: int = Field(
        100,
        ge=1,
        le=100_000,
        description="log-ins with one name that may fail within the window from all networks, known browsers aside",
    )
    attempts_window_seconds: int = Field(
        900,
        ge=10,
        le=86_400,
        description="the window of these log-ins in seconds, which is also how long to wait at most",
    )
