"""The real time, in the spellings that the providers use."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the real time, aware and in UTC."""
    return datetime.now(UTC)


def iso(at: datetime) -> str:
    """ISO 8601 with microseconds and `Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def iso_seconds(at: datetime) -> str:
    """ISO 8601 to the second, with `Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def banked_time(at: datetime) -> str:
    """Banked's `YYYY-MM-DD HH:MM:SS UTC`."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def parsed(text: str) -> datetime | None:
    """Parse an ISO 8601 instant, UTC where it names no zone; None for others."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
