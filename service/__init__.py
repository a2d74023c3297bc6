"""Commands, accounts and proofs that the API, the console and the command line share."""
