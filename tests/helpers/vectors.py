import numpy as np


def vectors(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal draws in float64."""
    return np.random.default_rng(seed).normal(size=shape)
