"""ADAPTER: tables, SQL, units of work, migrations. The only package that knows SQL."""
