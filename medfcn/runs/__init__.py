"""A run folder: its names, its lock, requests to stop, checkpoints; shared by training, tuning and batches."""
