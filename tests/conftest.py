"""For all tests."""

from hypothesis import settings

# A deadline per example would fail on a busy machine, whatever the code does.
settings.register_profile("without_deadline", deadline=None)
settings.load_profile("without_deadline")
