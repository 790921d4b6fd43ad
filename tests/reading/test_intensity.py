"""Grey values and colours are changed alike whatever region is read, and as the recipe says."""

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.config.intensity import IntensityConfig, LocalContrastConfig
from wsi_seg.errors import StoreError
from wsi_seg.geometry import Extent, Region
from wsi_seg.reading.array import ArrayImage
from wsi_seg.reading.intensity import PreparedImage, prepared_image
from wsi_seg.reading.stains import _AXES, _CONES, _MEAN, _STD, to_reference

HEIGHT, WIDTH = 150, 190
WHOLE = Region(level=0, y=0, x=0, height=HEIGHT, width=WIDTH)

# Two laboratories' haematoxylin and eosin, as optical density of red, green and blue.
STAINS = {
    "here": np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]]),
    "there": np.array([[0.55, 0.75, 0.37], [0.20, 0.90, 0.35]]),
}


class Slide:
    """A picture as a slide, with a tissue mask at a quarter of its size."""

    def __init__(self, pixels, tissue=None):
        self.name, self.image, self._tissue = "a", ArrayImage((pixels,)), tissue

    def label_names(self):
        return () if self._tissue is None else ("tissue",)

    def label(self, name):
        return Mask(self._tissue)


class Mask:
    def __init__(self, array):
        self.array, self.pyramid = array, ArrayImage((array[..., None],)).pyramid

    def read(self, region):
        return self.array[region.slices]


def stained(stains, *, seed=0, density=1.0):
    """Picture of tissue of two stains, and of glass."""
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(2.0, 0.25, (HEIGHT, WIDTH, 2)) * density
    amounts[:30] = 0.01
    light = np.exp(-amounts @ (stains / np.linalg.norm(stains, axis=1, keepdims=True)))
    return np.rint(light * 255).astype(np.uint8)


def seen(pixels, tissue=None, **config):
    image = prepared_image(Slide(pixels, tissue), IntensityConfig(**config))
    return image.read(WHOLE)


CONFIGS = [
    {"scale": "minmax"},
    {"scale": "percentiles"},
    {"scale": "slide", "stain": "macenko"},
    {"stain": "reinhard", "clahe": LocalContrastConfig(kernel_px=32)},
    {"clahe": LocalContrastConfig(kernel_px=17, clip=3.0), "outside_tissue": 170},
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "-".join(config))
@given(st.integers(0, HEIGHT - 1), st.integers(0, WIDTH - 1), st.data())
def test_a_pixel_is_the_same_in_every_region(config, y, x, data):
    height = data.draw(st.integers(1, HEIGHT - y))
    width = data.draw(st.integers(1, WIDTH - x))
    tissue = (np.add.outer(np.arange(37), np.arange(47)) % 3 > 0).astype(np.uint8)
    image = prepared_image(Slide(stained(STAINS["here"]), tissue), IntensityConfig(**config))
    part = image.read(Region(level=0, y=y, x=x, height=height, width=width))
    assert np.array_equal(part, image.read(WHOLE)[y : y + height, x : x + width])


def test_minmax_spans_all_values_and_keeps_proportions():
    dull = np.random.default_rng(0).integers(70, 151, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    found = seen(dull, scale="minmax")
    assert (found.min(), found.max()) == (0, 255)
    assert np.abs(found - (dull.astype(float) - 70) / 80 * 255).max() <= 0.5
    flat = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    assert (seen(flat, scale="minmax") == 0).all()


def test_percentiles_leave_outliers_out():
    dull = np.random.default_rng(0).integers(100, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    dull[0, 0], dull[0, 1] = 0, 255
    assert np.ptp(seen(dull, scale="minmax")[1:]) < 25
    found = seen(dull, scale="percentiles", percentiles=(1.0, 99.0))
    assert (found[1:].min(), found[1:].max()) == (0, 255)


def test_slide_statistics_are_those_of_imagenet():
    rng = np.random.default_rng(0)
    pixels = np.clip(rng.normal([200, 60, 100], [9, 12, 5], (HEIGHT, WIDTH, 3)), 0, 255)
    found = seen(pixels.astype(np.uint8), scale="slide").reshape(-1, 3)
    assert found.mean(axis=0) == pytest.approx([123.7, 116.3, 103.5], abs=1.5)
    assert found.std(axis=0) == pytest.approx([58.4, 57.1, 57.4], rel=0.05)


def test_tissue_of_two_laboratories_looks_alike_afterwards():
    here, there = stained(STAINS["here"]), stained(STAINS["there"], density=1.4)
    apart = np.abs(here[30:].astype(float) - there[30:]).mean()
    same = [seen(one, stain="macenko")[30:].astype(float) for one in (here, there)]
    assert apart > 20
    assert np.abs(same[0] - same[1]).mean() < apart / 3


@pytest.mark.parametrize("stains", STAINS)
def test_reinhard_gives_tissue_the_mean_and_the_deviation_of_the_reference(stains):
    pixels = stained(STAINS[stains], density=0.8)
    tissue = (-np.log((pixels + 1.0) / 256) > 0.15).all(axis=2)
    light = (seen(pixels, stain="reinhard")[tissue] + 1.0) / 256
    axes = np.log(light @ _CONES.T) @ _AXES.T
    assert axes.mean(axis=0) == pytest.approx(_MEAN, abs=0.02)
    assert axes.std(axis=0) == pytest.approx(_STD, abs=0.02)


def test_macenko_finds_the_stains_that_a_picture_was_made_with():
    """Then the amounts of both stains are those of the reference at their 99th percentile."""
    change = to_reference(stained(STAINS["here"]), "macenko")
    unit = STAINS["here"] / np.linalg.norm(STAINS["here"], axis=1, keepdims=True)
    reference = np.array([[0.5626, 0.7201, 0.4062], [0.2159, 0.8012, 0.5581]])
    turned = unit @ change.change
    cosines = (turned * reference).sum(axis=1) / np.linalg.norm(turned, axis=1)
    assert (cosines / np.linalg.norm(reference, axis=1) > 0.99).all()


def test_a_slide_of_glass_keeps_its_colours(caplog):
    glass = np.full((HEIGHT, WIDTH, 3), 240, np.uint8)
    assert np.abs(seen(glass, stain="macenko").astype(int) - 240).max() <= 1
    assert "hardly any stained tissue" in caplog.text


def test_contrast_of_cells_is_that_of_opencv():
    """On a grey picture that cells fill, large enough for OpenCV's rounding not to count."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:256, :384]
    grey = (90 + 30 * np.sin(y / 9) * np.cos(x / 13) + rng.normal(0, 6, y.shape)).astype(np.uint8)
    config = IntensityConfig(clahe=LocalContrastConfig(kernel_px=128, clip=3.0))
    image = prepared_image(Slide(np.repeat(grey[..., None], 3, axis=2)), config)
    found = image.read(Region(level=0, y=0, x=0, height=256, width=384))
    expected = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(3, 2)).apply(grey)
    off = np.abs(found[..., 0].astype(int) - expected)
    assert off.mean() < 1.5
    assert found.std() > 1.3 * grey.std()


def test_outside_of_the_tissue_is_painted_over():
    pixels = stained(STAINS["here"])
    tissue = np.zeros((37, 47), np.uint8)
    tissue[10:20, 5:40] = 1
    found = seen(pixels, tissue, outside_tissue=170)
    inside = np.zeros((HEIGHT, WIDTH), bool)
    rows = (np.arange(HEIGHT) + 0.5) / HEIGHT * 37
    columns = (np.arange(WIDTH) + 0.5) / WIDTH * 47
    inside[np.ix_((rows >= 10) & (rows < 20), (columns >= 5) & (columns < 40))] = True
    assert (found[~inside] == 170).all()
    assert np.array_equal(found[inside], pixels[inside])
    with pytest.raises(StoreError, match="has no tissue mask"):
        seen(pixels, outside_tissue=170)


def test_of_a_fine_mask_a_coarse_level_is_read():
    """Memory must not grow with the size of a mask that was drawn at full resolution."""
    sizes = ((HEIGHT, WIDTH), (38, 48))
    image = ArrayImage(tuple(np.full((*size, 3), 90, np.uint8) for size in sizes))
    tissue = ArrayImage((np.zeros(sizes[0], np.uint8), np.ones(sizes[1], np.uint8)))
    config = IntensityConfig(outside_tissue=170)
    coarse = Region(level=1, y=0, x=0, height=38, width=48)
    found = PreparedImage(image, config, None, None, tissue).read(coarse)
    assert (found == 90).all()


def test_nothing_asked_for_is_the_slide_itself_and_what_was_measured_is_reported():
    slide = Slide(stained(STAINS["here"]))
    assert prepared_image(slide, IntensityConfig()) is slide.image
    image = prepared_image(slide, IntensityConfig(stain="reinhard", scale="minmax"))
    assert isinstance(image, PreparedImage)
    measured: Any = image.measured
    assert measured["scale"] == "minmax"
    assert np.array(measured["colours"]["matrix"]).shape == (3, 3)
    assert image.chunk(0) == slide.image.chunk(0)
    assert image.pyramid.extent == Extent(height=HEIGHT, width=WIDTH)
