"""A trained model and a `Volume` → a mask; a folder → a folder; the model's files."""
