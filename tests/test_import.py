"""Importing the package is cheap, and its public names are a decision."""

import subprocess
import sys

import wsi_seg

HEAVY = ("torch", "dask", "rasterio", "shapely", "zarr", "tifffile", "lightning", "albumentations")


def test_import_loads_no_heavy_library():
    code = f"import sys, wsi_seg; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_dask_is_loaded_for_a_cluster_only():
    code = (
        "import sys, wsi_seg.infer.run; print('dask' in sys.modules, 'distributed' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False False"


def test_every_public_name_exists():
    for name in wsi_seg.__all__:
        assert getattr(wsi_seg, name) is not None
    assert dir(wsi_seg) == sorted(wsi_seg.__all__)
