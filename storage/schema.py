"""Every table of the database: importing this is what makes the metadata whole."""

from typing import Final

from sqlalchemy import MetaData

from storage import columns, tables, tables_inbox, tables_support

metadata: Final[MetaData] = columns.metadata

#: The modules that declare tables.
DECLARED_IN: Final = (tables, tables_inbox, tables_support)
