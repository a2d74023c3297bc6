"""Housekeeping put together from the settings: for the worker process, and by command."""

from receipted.wiring import Service
from storage.retention import Retention
from worker.housekeeping import Housekeeping


def retention(service: Service) -> Retention:
    """What throws away what the settings say."""
    return Retention(service.database, service.settings.retention.rules(), service.clock)


def housekeeping(service: Service) -> Housekeeping:
    """What looks after partitions and retention."""
    return Housekeeping(service.database, service.settings.retention.period(), retention(service), service.clock)
