"""Every operation of the API. The router, the description, the page and the tests read this list and no other."""

from api import administration, events, looking, payments, proving, queues
from api.operation import Operation


def operations() -> tuple[Operation, ...]:
    """The operations, with what they share of one process's life."""
    return (
        *payments.OPERATIONS,
        *events.operations(),
        *queues.OPERATIONS,
        *looking.OPERATIONS,
        *proving.OPERATIONS,
        *administration.OPERATIONS,
    )
