"""Trained models in forms that travel; each export is tried on a phantom before its file gets its name."""
