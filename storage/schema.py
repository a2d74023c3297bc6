"""Every table of the database: importing this is what makes the metadata whole."""

from typing import Final

from sqlalchemy import MetaData

from storage import tables, tables_asking

metadata: Final[MetaData] = tables.metadata

#: The modules that declare tables.
DECLARED_IN: Final = (tables, tables_asking)
