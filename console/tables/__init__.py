"""The tables: their columns, filters, pages, exports and bulk actions."""
