"""Which of SB3's tests expect something else than docs/features.md says."""

# Tests that look at the environments as objects of their own process: they run with backend="inline".
LOOK_AT_ENV_OBJECTS = ()

# Tests that have to fail, by the beginning of their names, and why. One that passes is an error.
DIFFERENCES: dict[str, str] = {}
