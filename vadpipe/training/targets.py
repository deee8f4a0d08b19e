"""What a network is asked to give outside the region that matters, so that it learns the inside alone.

The IST report asks for the input itself (`plain`: no loss at all), for the input with noise, for its inverse, or
for a value far away that is a function of the input. A network cannot learn noise but by heart, and not
soon (Arpit et al., ICML 2017), and what it wastes on the outside it lacks for anomalies inside.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

Target = Literal["plain", "noise", "bounded_noise", "inverted", "shift"]
TARGETS: tuple[Target, ...] = get_args(Target)

Floats = npt.NDArray[np.float32]


def modified(
    target: Target, images: Floats, outside: npt.NDArray[np.bool_], noise: float, generator: np.random.Generator
) -> Floats:
    """Return images (n, H, W, 3) in 0..1 with other values outside; inside nothing changes.

    Args:
        target: `noise` adds a Gaussian of deviation `noise`, cut to 0..1; `bounded_noise` the same Gaussian,
            but never more than `noise` away from the input; `inverted` is 1 - x; `shift` is (x + 1/2) mod 1,
            as far from the input as a value on a circle can be (the report's module shift).
        outside: (n, H, W).
    """
    if target == "plain":
        return images
    if target == "inverted":
        other = 1 - images
    elif target == "shift":
        other = (images + np.float32(0.5)) % np.float32(1)
    else:
        drawn = generator.standard_normal(images.shape, np.float32) * np.float32(noise)
        if target == "bounded_noise":
            drawn = drawn.clip(-noise, noise)
        other = (images + drawn).clip(0, 1)
    return np.where(outside[..., None], other, images).astype(np.float32)
