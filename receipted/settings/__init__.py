"""Settings: the models, loading from a file and the environment, validation, and secrets."""
