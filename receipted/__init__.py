"""The application put together: settings (the only reader of the environment), wiring, web app, command line.

Everything may be imported from here; nothing imports this package.
"""
