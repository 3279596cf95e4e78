"""Labs with running agents are those of the end-to-end tests."""

from tests.e2e.conftest import secret

__all__ = ["secret"]
