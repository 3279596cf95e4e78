"""What all tests share: property tests are not timed, for machines are shared and noisy."""

from hypothesis import settings

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")
