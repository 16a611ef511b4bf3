"""How much chance the tests take: a little in daily work and before each change lands, more where somebody asks for it."""

import os

# ``TESTS_EFFORT=5 make test`` tries five times as many examples.
EFFORT = int(os.environ.get("TESTS_EFFORT", "1"))


def examples(few: int) -> int:
    """Return how many examples a test tries that takes ``few`` of them in daily work."""
    return few * EFFORT
