"""The viewer in a notebook's cell."""

import re
import urllib.request

import pytest

from wsi_seg.errors import StoreNotFoundError
from wsi_seg.viewer.cell import view
from wsi_seg.viewer.serve import LIBRARY


def test_a_cell_shows_the_page_in_a_frame(seen):
    if not LIBRARY.is_file():
        with pytest.raises(StoreNotFoundError, match="make viewer"):
            view(seen.store)
        return
    shown = view(seen.store, seen.prediction, height_px=500)
    try:
        (address,) = re.findall(r'<iframe src="([^"]+)"', shown._repr_html_())
        assert 'height="500"' in shown._repr_html_()
        with urllib.request.urlopen(address) as answer:
            assert "http://localhost:*" in answer.headers["Content-Security-Policy"]
            assert b"wsi_seg viewer" in answer.read()
        with urllib.request.urlopen(f"{address}slides") as answer:
            assert b"painted" in answer.read()
    finally:
        shown.close()
