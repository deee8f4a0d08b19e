"""Augmentation and targets: images and masks go together, and equal seeds give equal bits."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vadpipe.errors import UserError
from vadpipe.training import augment
from vadpipe.training.augment import Sample, augmented, varied, window
from vadpipe.training.targets import TARGETS, modified


def sample(seed: int = 0) -> Sample:
    """An image whose blue channel shows the region and whose red one the filled pixels."""
    rng = np.random.default_rng(seed)
    region = np.zeros((60, 80), bool)
    region[10:50, 5:70] = True
    filled = np.zeros((60, 80), bool)
    filled[20:30, 30:50] = True
    image = np.dstack([filled * 255, rng.integers(0, 256, (60, 80)), region * 255]).astype(np.uint8)
    return Sample(image, region, filled)


def same(first: Sample, second: Sample) -> bool:
    pairs = ((first.image, second.image), (first.region, second.region), (first.filled, second.filled))
    return all((a == b).all() for a, b in pairs)


def test_the_first_are_the_images_themselves_and_the_rest_variants_in_turn() -> None:
    samples = [sample(seed) for seed in range(3)]
    made = augmented(samples, 11, seed=5)
    assert len(made) == 11
    assert all(same(a, b) for a, b in zip(samples, made[:3], strict=True))
    assert not any(same(made[index], made[other]) for index in range(11) for other in range(index))
    assert all(one.image.shape == (60, 80, 3) and one.image.dtype == np.uint8 for one in made)


def test_a_set_of_2009_images_is_one_number() -> None:
    assert len(augmented([sample(seed) for seed in range(308)], 2009, seed=0)) == 2009


def test_equal_seeds_give_equal_bits() -> None:
    samples = [sample(seed) for seed in range(3)]
    first, again, other = (augmented(samples, 9, seed) for seed in (1, 1, 2))
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert not any(same(a, b) for a, b in zip(first[3:], other[3:], strict=True))
    # A larger set begins as a smaller one does.
    assert all(same(a, b) for a, b in zip(first, augmented(samples, 20, 1)[:9], strict=True))


def test_too_few_images_are_refused() -> None:
    with pytest.raises(UserError, match=r"train\.images: 2 is fewer than the 3"):
        augmented([sample(seed) for seed in range(3)], 2, seed=0)


@pytest.mark.parametrize("seed", range(12))
def test_masks_move_with_their_image(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(augment, "_SATURATION", (1.0, 1.0))
    monkeypatch.setattr(augment, "_BRIGHTNESS", (1.0, 1.0))
    monkeypatch.setattr(augment, "_BLURRED", 0.0)
    made = varied(sample(), np.random.default_rng(seed))
    # Where nothing comes from beyond the border, the channels still show the masks, but for mixed pixels at edges.
    inside = cv2.erode(made.region.astype(np.uint8), np.ones((5, 5))) > 0
    assert inside.any()
    assert (made.image[..., 2][inside] > 127).all()
    for channel, mask in ((0, made.filled), (2, made.region)):
        outline = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((5, 5))) > 0
        clear = made.region & ~outline
        assert ((made.image[..., channel] > 127) == mask)[clear].all()


def test_what_lies_beyond_the_image_is_outside_the_region() -> None:
    whole = Sample(sample().image, np.ones((60, 80), bool), np.zeros((60, 80), bool))
    shares = [varied(whole, np.random.default_rng(seed)).region.mean() for seed in range(20)]
    assert min(shares) < 0.999
    assert min(shares) > 0.6
    assert max(shares) == 1


def test_every_variant_occurs() -> None:
    """Mirrored, turned over, enlarged, darker, brighter, blurred, paler."""
    image = np.zeros((60, 80, 3), np.uint8)
    image[:30, :40], image[:30, 40:] = (200, 60, 60), (60, 200, 60)
    image[30:, :40], image[30:, 40:] = (60, 60, 200), (150, 150, 150)
    quarters = [(15, 20), (15, 60), (45, 20), (45, 60)]
    full = np.ones((60, 80), bool)
    orders, levels = set(), []
    for seed in range(60):
        made = varied(Sample(image, full, ~full), np.random.default_rng(seed)).image
        levels.append(made.mean())
        orders.add(tuple(int(made[at].argmax()) if np.ptp(made[at]) > 12 else 3 for at in quarters))
    assert {(0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0)} <= orders
    assert min(levels) < 0.85 * image.mean()
    assert max(levels) > 1.15 * image.mean()


def test_colours_are_cut_and_not_wrapped() -> None:
    bright = np.full((4, 4, 3), (250, 10, 128), np.uint8)
    changed = augment._coloured(bright, 1.4, 1.3)
    assert (changed == (255, 0, 164)).all() or (changed[..., :2] == (255, 0)).all()
    grey = augment._coloured(bright, 0.0, 1.0)
    assert (grey == grey[..., :1]).all()
    assert (augment._coloured(bright, 1.0, 1.0) == bright).all()


def test_windows_show_the_region_and_stay_inside() -> None:
    whole, reached = sample(), np.zeros((60, 80), bool)
    for seed in range(200):
        part = window(whole, 0.3, np.random.default_rng(seed))
        assert part.image.shape == (18, 24, 3)
        assert part.region.any()
        # The image shows region and filled pixels, so that a window of another place would not fit.
        assert ((part.image[..., 2] == 255) == part.region).all()
        assert ((part.image[..., 0] == 255) == part.filled).all()
        tops, lefts = np.nonzero(
            (np.lib.stride_tricks.sliding_window_view(whole.image, (18, 24, 3))[..., 0, :, :, :] == part.image).all(
                (2, 3, 4)
            )
        )
        assert len(tops) == 1
        reached[tops[0] : tops[0] + 18, lefts[0] : lefts[0] + 24] = True
    assert reached[whole.region].all()
    assert same(window(whole, 0.3, np.random.default_rng(1)), window(whole, 0.3, np.random.default_rng(1)))


def test_a_window_of_everything_is_the_sample_and_one_without_region_is_taken_anywhere() -> None:
    assert same(window(sample(), 1.0, np.random.default_rng(0)), sample())
    nowhere = Sample(sample().image, np.zeros((60, 80), bool), sample().filled)
    assert window(nowhere, 0.5, np.random.default_rng(0)).image.shape == (30, 40, 3)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((2, 10, 12, 3)).astype(np.float32)


@pytest.mark.parametrize("target", TARGETS)
def test_targets_change_the_outside_alone(images: np.ndarray, target: str) -> None:
    outside = np.zeros((2, 10, 12), bool)
    outside[:, :4] = True
    made = modified(target, images, outside, 0.1, np.random.default_rng(1))  # type: ignore[arg-type]
    again = modified(target, images, outside, 0.1, np.random.default_rng(1))  # type: ignore[arg-type]
    assert (made == again).all()
    assert made.dtype == np.float32
    assert (made[~outside] == images[~outside]).all()
    assert made.min() >= 0
    assert made.max() <= 1
    assert (target == "plain") == bool((made == images).all())


def test_what_the_targets_are(images: np.ndarray) -> None:
    outside = np.ones((2, 10, 12), bool)

    def change(target: str, noise: float = 0.1) -> np.ndarray:
        return modified(target, images, outside, noise, np.random.default_rng(1)) - images  # type: ignore[arg-type]

    assert change("inverted") == pytest.approx(1 - 2 * images, abs=1e-6)
    assert np.abs(change("shift")) == pytest.approx(0.5)
    assert np.abs(change("bounded_noise")).max() <= 0.1 + 1e-6
    assert np.abs(change("noise")).max() > 0.2
    middle = (images > 0.3) & (images < 0.7)
    assert change("noise")[middle].std() == pytest.approx(0.1, rel=0.2)
