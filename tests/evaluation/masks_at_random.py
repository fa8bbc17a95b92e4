"""Random pairs of masks of the kinds that occur: noise, blobs, moved blobs, thin sheets, filled, nearly empty."""

import numpy as np
from scipy.ndimage import gaussian_filter


def random_pair(random, *, dimensions=None, longest=8):
    """A reference and a prediction (boolean), and their spacing."""
    dimensions = dimensions or int(random.integers(2, 4))
    shape = tuple(int(length) for length in random.integers(1, longest + 1, size=dimensions))
    reference, prediction = random_mask(random, shape), random_mask(random, shape)
    kind = random.integers(4)
    if kind == 0:
        prediction = np.roll(reference, int(random.integers(-2, 3)), axis=int(random.integers(dimensions)))
    if kind == 1:
        prediction = reference ^ (random.random(shape) < 0.1)
    order = "F" if random.random() < 0.3 else "C"
    spacing = tuple(float(edge) for edge in random.uniform(0.3, 4.0, size=dimensions))
    return np.asarray(reference, order=order), prediction, spacing


def random_mask(random, shape):
    kind = random.integers(8)
    if kind == 0:
        return np.ones(shape, dtype=bool)
    if kind == 1:
        mask = np.zeros(shape, dtype=bool)
        mask[tuple(int(random.integers(length)) for length in shape)] = random.random() < 0.7
        return mask
    if kind == 2:
        return np.indices(shape)[0] % 2 == 0
    field = gaussian_filter(random.normal(size=shape), float(random.uniform(0, 1.5)))
    return field > np.quantile(field, random.uniform(0.1, 0.95))
