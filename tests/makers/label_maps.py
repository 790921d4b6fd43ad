"""Owns label maps of noise, with borders, corners and holes of all kinds."""

import numpy as np
from hypothesis import strategies as st
from scipy import ndimage


def label_maps(longest):
    """Maps of 1 to 4 classes, coarse or fine, up to a side."""
    seeds, sizes = st.integers(0, 2**32 - 1), st.integers(1, longest)
    classes, sigmas = st.integers(2, 5), st.sampled_from([0.0, 1.0, 3.0])
    return st.builds(noise_map, seeds, sizes, sizes, classes, sigmas)


def noise_map(seed, height, width, classes, sigma):
    """Classes 0 to ``classes - 1`` of equal area, ``(height, width)`` uint8."""
    noise = np.random.default_rng(seed).random((height, width))
    smooth = ndimage.gaussian_filter(noise, sigma) if sigma else noise
    ranks = smooth.ravel().argsort().argsort().reshape(smooth.shape)
    return (ranks * classes // smooth.size).astype(np.uint8)
