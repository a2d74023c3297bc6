"""Settings: models, loading from a file and the environment, validation, secrets."""
