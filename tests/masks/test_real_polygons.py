"""Real outlines drawn, outlined and drawn again give the same pixels."""

import numpy as np
import pytest

from wsi_seg.annotations import Annotation, read_annotations
from wsi_seg.classes import ClassTable
from wsi_seg.geometry import Region
from wsi_seg.masks.rasterize import Rasterizer
from wsi_seg.masks.vectorize import vectorize

FILES = {
    "camelyon16-polygons": "Tumor_0*.json",
    "glomeruli-polygons/qupath-geojson": "*.geojson",
    "glomeruli-polygons/hubmap-json": "*.json",
}
DOWNSAMPLE = 16.0


@pytest.mark.parametrize("folder", FILES)
def test_drawing_the_outlines_of_a_drawing_changes_nothing(shared_data, folder):
    for path in sorted((shared_data / folder).glob(FILES[folder]))[:4]:
        items = read_annotations(path, default_class="other").items
        classes = ClassTable.named(sorted({item.class_name for item in items}))
        bounds = np.array([item.geometry.bounds for item in items])
        left, top = bounds[:, :2].min(axis=0) / DOWNSAMPLE
        right, bottom = bounds[:, 2:].max(axis=0) / DOWNSAMPLE
        region = Region(
            level=0,
            y=int(top),
            x=int(left),
            height=min(3000, int(bottom - top) + 2),
            width=min(3000, int(right - left) + 2),
        )
        drawn = Rasterizer(items, classes).draw(region, (DOWNSAMPLE, DOWNSAMPLE))
        assert drawn.any()
        strips = ((y, drawn[y : y + 257]) for y in range(0, region.height, 257))
        outlined = [Annotation(area, classes.names[value - 1]) for value, area in vectorize(strips)]
        whole = Region(level=0, y=0, x=0, height=region.height, width=region.width)
        again = Rasterizer(outlined, classes).draw(whole, (1.0, 1.0))
        assert np.array_equal(again, drawn)
