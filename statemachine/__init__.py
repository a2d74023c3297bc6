"""RULES: lifecycles as data, observations, decide(). Pure: no clock, no I/O."""
