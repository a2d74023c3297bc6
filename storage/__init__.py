"""ADAPTER: tables, SQL, units of work, migrations; the only package with SQL."""
