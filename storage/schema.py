"""Every table of the database: importing this is what makes the metadata whole."""

from typing import Final

from sqlalchemy import MetaData

from storage import columns, tables, tables_api, tables_asking, tables_audit, tables_console, tables_retention

metadata: Final[MetaData] = columns.metadata

#: The modules that declare tables.
DECLARED_IN: Final = (tables, tables_asking, tables_api, tables_retention, tables_console, tables_audit)
