"""Errors of storage."""

from typing import ClassVar

from statemachine.errors import ServiceError


class StorageUnavailable(ServiceError):
    """The database cannot be read or written now.

    Nothing of the unit of work was kept, unless the connection was lost during the commit itself.
    """

    type = "api_error"
    code = "storage_unavailable"
    status = 503
    retryable: ClassVar[bool] = True
    is_rivalry: bool = False  #: another unit of work was first, in a deadlock or with a partition; a repeat will do
    is_held: bool = False  #: another session holds a row, or one statement was ended: other rows may be written
    refusal: str | None = None  #: storage_read_only or storage_full, where that is why nothing can be written


class UnreadableRow(ServiceError):
    """A row holds a value that its column never had; a person must mend it."""

    type = "api_error"
    code = "row_unreadable"
    status = 500


class DatabaseUnsupported(ServiceError):
    """The database's URL names another kind of database, or its driver is missing."""

    type = "api_error"
    code = "database_unsupported"
    status = 500


class LeaseLost(ServiceError):
    """Another worker has claimed the row since; this unit of work must not commit."""

    type = "conflict_error"
    code = "lease_lost"
    status = 409
    retryable: ClassVar[bool] = True


class NotFound(ServiceError):
    """There is no such row."""

    type = "not_found_error"
    code = "not_found"
    status = 404


class EffectOvertaken(ServiceError):
    """A later effect of the same payment was handed over, or is on its way."""

    type = "conflict_error"
    code = "effect_overtaken"
    status = 409


class PersonExists(ServiceError):
    """The name is taken."""

    type = "conflict_error"
    code = "person_exists"
    status = 409


class SchemaOutdated(ServiceError):
    """The schema is not the one that this program needs; run `receipted migrate`."""

    type = "api_error"
    code = "schema_outdated"
    status = 503
