"""Engine of declared providers: a page of TOML becomes a Provider."""
