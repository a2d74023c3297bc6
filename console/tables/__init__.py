"""The tables of the console: their columns, filters, pages, exports and bulk actions."""
