"""The tables of the console: starlette-admin's views over storage's reading functions, on pages of our own frame."""
