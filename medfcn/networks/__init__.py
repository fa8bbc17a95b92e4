"""A batch of slices → logits; losses on logits."""
