"""Owns checks of installed software: Python, libraries, and the libraries of extras."""

import platform
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from wsi_seg.doctor.finding import Finding

# What each extra is for.
PURPOSES: Mapping[str, str] = {
    "dicom": "DICOM slides in, DICOM segmentations out",
    "onnx": "networks in ONNX files, in and out",
    "openslide": "slides of MIRAX, Hamamatsu, Ventana and others",
    "pretrained": "encoders with ImageNet weights, without a download",
    "remote": "stores and slides behind addresses, such as s3://",
    "report": "plots of reports and previews",
    "slurm": "infer --cluster slurm",
    "spatialdata": "export as SpatialData",
    "tensorboard": "curves of training in a browser",
    "viewer": "wsi-seg view",
    "volume": "CT volumes: mhd, nii, nrrd",
}

# Libraries to list by name; others are only counted.
_NAMED = ("torch", "zarr", "dask", "imagecodecs", "tifffile", "numpy")

# Modules of libraries with compiled parts, which can fail to load although they are installed.
COMPILED: Mapping[str, str] = {
    "imagecodecs": "imagecodecs",
    "numcodecs": "numcodecs",
    "numpy": "numpy",
    "opencv-python-headless": "cv2",
    "pillow": "PIL.Image",
    "psutil": "psutil",
    "pyarrow": "pyarrow",
    "rasterio": "rasterio",
    "scipy": "scipy",
    "shapely": "shapely",
    "torch": "torch",
}

# Errors of importing such a library, if a part is missing or was built for another version.
BROKEN = (ImportError, OSError, RuntimeError, AttributeError, ValueError)


def requirements() -> list[str]:
    """Return the requirements of the installed package; empty if it is not installed."""
    try:
        return requires("wsi-seg") or []
    except PackageNotFoundError:
        return []


def examine_libraries(required: Sequence[str]) -> Iterator[Finding]:
    """Check the installed versions of libraries that every command needs.

    Parameters
    ----------
    required
        Requirements such as ``zarr>=3.1`` and ``pydicom>=3.0; extra == 'dicom'``.

    Yields
    ------
    Finding
        Python, the main libraries, all that are missing or too old, and the number of others.
    """
    yield Finding("Python", platform.python_version())
    needed = [one for one in map(Requirement, required) if _applies(one, "")]
    if not needed:
        yield Finding("wsi-seg", "not installed, only found in a folder", "note",
                      "what it requires cannot be checked; run: pip install .")  # fmt: skip
    others = 0
    for one in needed:
        wrong = _wrong(one)
        if wrong:
            advice = f"every command may need it; run: pip install '{one.name}{one.specifier}'"
            yield Finding(one.name, wrong, "bad", advice)
        elif wrong := _unloadable(one.name):
            again = f"pip install --force-reinstall {one.name}=={version(one.name)}"
            yield Finding(one.name, wrong, "bad", f"every command may need it; run: {again}")
        elif one.name in _NAMED:
            yield Finding(one.name, version(one.name))
        else:
            others += 1
    if others:
        yield Finding("other libraries", f"{others}, all of supported versions")


def examine_extras(required: Sequence[str]) -> Iterator[Finding]:
    """Report for each extra whether it is installed, and what does not work without it.

    Parameters
    ----------
    required
        See `examine_libraries`.
    """
    parsed = [Requirement(line) for line in required]
    for extra, purpose in PURPOSES.items():
        found = [one for one in parsed if _applies(one, extra) and not _applies(one, "")]
        wrong = [f"{one.name} {fault}" for one in found if (fault := _wrong(one))]
        if wrong:
            advice = f"for {purpose}; run: pip install 'wsi-seg[{extra}]'"
            yield Finding(f"extra {extra}", ", ".join(wrong), "note", advice)
        elif found:
            yield Finding(f"extra {extra}", ", ".join(f"{o.name} {version(o.name)}" for o in found))


def error_line(error: BaseException) -> str:
    """Return the first line of an error's message that is not empty, or its type."""
    lines = [line.strip() for line in str(error).splitlines()]
    return next(filter(None, lines), type(error).__name__)


def _unloadable(name: str) -> str:
    """Return why a library with compiled parts cannot be loaded; empty for others."""
    if name not in COMPILED:
        return ""
    try:
        import_module(COMPILED[name])
    except BROKEN as error:
        return f"{version(name)} cannot be loaded: {error_line(error)}"
    return ""


def _applies(one: Requirement, extra: str) -> bool:
    return one.marker is None or one.marker.evaluate({"extra": extra})


def _wrong(one: Requirement) -> str:
    """Return what is wrong with a library; empty if its version is allowed."""
    try:
        found = version(one.name)
    except PackageNotFoundError:
        return "is not installed"
    if one.specifier.contains(found, prereleases=True):
        return ""
    return f"is {found}, expected {one.specifier}"
