"""Slices and a network → a run folder."""
