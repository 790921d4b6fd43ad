"""Owns the mapping of optional libraries to the extras of the package that install them."""

from collections.abc import Iterator
from contextlib import contextmanager

from wsi_seg.errors import MissingLibraryError

EXTRAS = {
    "dask_jobqueue": "slurm",
    "geopandas": "spatialdata",
    "highdicom": "dicom",
    "matplotlib": "report",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "openslide": "openslide",
    "pydicom": "dicom",
    "SimpleITK": "volume",
    "spatialdata": "spatialdata",
    "starlette": "viewer",
    "tensorboard": "tensorboard",
    "uvicorn": "viewer",
}


@contextmanager
def naming_extra(subject: str) -> Iterator[None]:
    """Translate a failed import of an optional library to an error that names the extra to install.

    Parameters
    ----------
    subject
        What needs the library: a file, a command or an option.

    Raises
    ------
    MissingLibraryError
        If an optional library is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS:
            raise
        raise MissingLibraryError(
            f"{subject} needs {library}, which is not installed; run: "
            f"pip install 'wsi-seg[{EXTRAS[library]}]'"
        ) from error
