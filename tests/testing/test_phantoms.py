import numpy as np
import pytest

from wsi_seg.testing.phantoms import phantom_ct, phantom_xray, write_mhd


def test_nodules_are_where_they_are_said_to_be(tmp_path):
    spacing = (2.5, 1.2, 1.2)
    volume, nodules = phantom_ct(0, spacing=spacing)
    assert volume.shape == (32, 160, 192)
    for nodule in nodules:
        z, y, x = (
            round(p / s) for p, s in zip((nodule.z, nodule.y, nodule.x), spacing, strict=True)
        )
        assert volume[z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2].max() > -550
    assert (volume < -700).mean() > 0.2
    assert not np.array_equal(volume, phantom_ct(1, spacing=spacing)[0])


def test_a_volume_comes_back_through_our_reader(tmp_path):
    pytest.importorskip("SimpleITK")
    from wsi_seg.slides.volume import depth, volume_grid

    volume, _ = phantom_ct(0, shape=(5, 40, 50))
    write_mhd(tmp_path / "a.mhd", volume, (2.5, 1.2, 1.1))
    assert depth(tmp_path / "a.mhd") == 5
    grid = volume_grid(tmp_path / "a.mhd")
    assert grid.spacing == pytest.approx((1.1, 1.2, 2.5))
    places = np.array([[3.0, 4.0, 2.0]])
    assert grid.voxels(grid.world(places)) == pytest.approx(places)


def test_a_finding_is_darker_than_its_surroundings():
    finding = np.zeros((200, 260), dtype=bool)
    finding[60:90, 50:90] = True
    seen, healthy = phantom_xray(finding, 3), phantom_xray(np.zeros_like(finding), 3)
    assert seen[finding].mean() < healthy[finding].mean() - 15
    far = np.s_[150:, 150:]
    assert np.array_equal(seen[far], healthy[far])
