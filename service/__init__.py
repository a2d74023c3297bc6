"""Rules that the console, the API and the command line share."""
