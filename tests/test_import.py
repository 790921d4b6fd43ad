"""Importing the package is cheap, and its public names are a decision."""

import subprocess
import sys

import wsi_seg

HEAVY = ("torch", "dask", "rasterio", "shapely", "zarr", "tifffile", "lightning", "albumentations")


def test_import_loads_no_heavy_library():
    code = f"import sys, wsi_seg; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def loaded_by(code):
    """Top-level modules that are loaded after some code ran in a fresh process."""
    code += "\nimport sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(out.stdout.splitlines()[-1].split())


def test_help_loads_what_it_prints_with_and_nothing_else():
    """Start-up of every verb: numpy alone would take longer than all of this."""
    code = (
        "import sys; sys.argv = ['wsi-seg', '--help']\n"
        "from wsi_seg.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass"
    )
    heavy = {"numpy", "pydantic", "yaml", "psutil", "PIL", "asyncio", *HEAVY}
    assert loaded_by(code) & heavy == set()


def test_infer_loads_nothing_that_it_does_not_use():
    """Time to the first tile is mostly imports: torch, and smp for the network."""
    unused = {
        "albumentations", "cv2", "dask", "distributed", "lightning", "matplotlib", "openslide",
        "pandas", "pyarrow", "pydicom", "rasterio", "scipy", "shapely", "skimage", "sklearn",
        "starlette", "tifffile", "torchmetrics", "zarr",
    }  # fmt: skip
    assert loaded_by("import wsi_seg.predict.ensemble, wsi_seg.infer.run") & unused == set()


def test_dask_is_loaded_for_a_cluster_only():
    code = (
        "import sys, wsi_seg.infer.run; print('dask' in sys.modules, 'distributed' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False False"


def test_predictions_are_scored_and_exported_without_torch():
    """It takes 700 MB and seconds, whatever the slide."""
    modules = ("export.run", "ct.candidates", "evaluate.compare", "evaluate.search",
               "evaluate.recalibrate", "evaluate.ablation", "evaluate.maps")  # fmt: skip
    code = f"import sys; {'; '.join(f'import wsi_seg.{name}' for name in modules)}"
    code += "; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_every_public_name_exists():
    for name in wsi_seg.__all__:
        assert getattr(wsi_seg, name) is not None
    assert dir(wsi_seg) == sorted(wsi_seg.__all__)
