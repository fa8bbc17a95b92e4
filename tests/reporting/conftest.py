"""Settings of hypothesis for this room."""

from hypothesis import settings

# A shared machine may take a second for what usually takes a millisecond.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
