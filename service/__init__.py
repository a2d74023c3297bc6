"""Commands, accounts and texts shared by API, console and command line."""
