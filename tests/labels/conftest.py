"""Machines that run several jobs at once are slow now and then; that is no failure."""

from hypothesis import settings

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")
