"""Application: settings, wiring, web application, processes and command line.

Everything may be imported from here; nothing imports this package.
"""
