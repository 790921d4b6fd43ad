import io

import numpy as np
from PIL import Image

from wsi_seg.masks.tissue import find_tissue


def glass(height=300, width=400, seed=0):
    rng = np.random.default_rng(seed)
    shade = np.linspace(235, 245, width)[None, :, None]
    return np.clip(shade + rng.normal(0, 2, (height, width, 3)), 0, 255).astype(np.uint8)


def test_stained_pieces_are_found_holes_filled_specks_dropped():
    image = glass()
    image[50:200, 60:260] = (200, 120, 170)
    image[100:105, 100:105] = (240, 240, 240)
    image[250:253, 300:303] = (200, 120, 170)
    mask = find_tissue(image)
    expected = np.zeros(mask.shape, dtype=bool)
    expected[50:200, 60:260] = True
    assert (mask & expected).sum() / (mask | expected).sum() > 0.93
    assert mask[102, 102]
    assert not mask[240:260, 290:310].any()


def test_blank_and_grey_images_have_none():
    assert not find_tissue(glass()).any()
    assert not find_tissue(np.full((50, 60, 3), 255, dtype=np.uint8)).any()
    grey = np.random.default_rng(0).integers(0, 256, (80, 90, 1), dtype=np.uint8)
    assert not find_tissue(np.repeat(grey, 3, axis=2)).any()


def test_black_frame_is_not_tissue():
    image = glass()
    image[:30] = (5, 0, 20)
    image[100:200, 100:200] = (190, 110, 160)
    mask = find_tissue(image)
    assert not mask[:28].any()
    assert mask[110:190, 110:190].all()


def test_real_slides_have_tissue_where_the_stain_is(shared_data):
    for folder in ("slide-large-larynx", "slide-medium-oralscc"):
        image = np.asarray(Image.open(shared_data / folder / "thumbnail.jpg").convert("RGB"))
        share = find_tissue(image).mean()
        assert 0.02 < share < 0.9


def test_noise_is_not_tissue():
    draws = np.random.default_rng(4)
    for centre, spread in ((128, 128), (200, 40), (230, 20)):
        noise = draws.uniform(centre - spread, centre + spread, (300, 400, 3))
        assert not find_tissue(np.clip(noise, 0, 255).astype(np.uint8)).any()


def tinted(height=300, width=400, tint=(232, 222, 196), noise=4):
    draws = np.random.default_rng(5)
    pixels = np.array(tint) + draws.normal(0, noise, (height, width, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def test_tinted_glass_is_not_tissue():
    assert not find_tissue(tinted()).any()
    assert not find_tissue(tinted(tint=(215, 225, 240), noise=0)).any()


def test_faint_tissue_on_tinted_glass_is_found():
    image = tinted()
    image[80:220, 100:300] = np.clip(image[80:220, 100:300] * [0.9, 0.78, 0.92], 0, 255)
    mask = find_tissue(image)
    expected = np.zeros(mask.shape, dtype=bool)
    expected[80:220, 100:300] = True
    assert (mask & expected).sum() / (mask | expected).sum() > 0.9


def test_blocks_of_a_lossy_codec_on_glass_are_not_tissue():
    packed = io.BytesIO()
    Image.fromarray(glass()).save(packed, "JPEG", quality=20)
    assert not find_tissue(np.asarray(Image.open(packed))).any()
