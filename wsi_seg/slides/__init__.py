"""Owns opening slide files: `open_slide` tries plug-in readers, then picks one by content."""

from pathlib import Path

from wsi_seg.errors import (
    MissingLibraryError,
    SlideError,
    UndecidedSlideError,
    UnsupportedSlideError,
)
from wsi_seg.extras import naming_extra
from wsi_seg.files.address import is_remote, without_secrets
from wsi_seg.slides.containers import known_container
from wsi_seg.slides.failures import translate_errors
from wsi_seg.slides.find import (
    DICOM_SUFFIXES,
    OPENSLIDE_SUFFIXES,
    Found,
    Skipped,
    find_slides,
    search_slides,
    volume_suffix,
)
from wsi_seg.slides.omezarr_images import is_zarr
from wsi_seg.slides.readers import Opener, open_installed
from wsi_seg.slides.slide import NotCopyable, Slide, TileStreams, slide_name, split_member
from wsi_seg.slides.sources import source_bytes, source_digest, source_name
from wsi_seg.slides.window import Window

__all__ = [
    "Found",
    "NotCopyable",
    "Opener",
    "Skipped",
    "Slide",
    "TileStreams",
    "Window",
    "find_slides",
    "open_slide",
    "search_slides",
    "slide_name",
    "source_bytes",
    "source_digest",
    "source_name",
]

_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_slide(
    path: Path | str,
    *,
    mpp: float | None = None,
    window: Window | None = None,
    scene: str | None = None,
    opener: Opener | None = None,
) -> Slide:
    """Open a slide or a plain image; the reader is chosen by the file's content.

    Plug-in readers of other packages are tried first: functions ``open(path, *, mpp)`` in the entry
    point group ``wsi_seg.readers``, which return a `Slide`, or None for files they do not support.

    Parameters
    ----------
    path
        A file; the folder of a DICOM slide or an OME-Zarr image; or one slice of a volume or of a
        DICOM series folder, such as ``ct.nii.gz/z0012``.
    mpp
        Micrometres per pixel of level 0; overrides the file's metadata.
    window
        Values shown as black and as white in plain DICOM images and volumes; overrides the
        file's metadata.
    scene
        Number (from 1) or name of the image to read from a file that holds several; other files
        only have scene 1.
    opener
        A custom reader, ``opener(path, mpp=mpp)``, used instead of all others.

    Returns
    -------
    Slide
        Close it after use, or open it in a ``with`` block.

    Raises
    ------
    SlideError
        If the file does not exist, is not a slide, or is damaged; or if a plug-in reader fails,
        which the message names.
    UnsupportedSlideError
        If the slide is of an unsupported kind.
    UndecidedSlideError
        If only the user can decide how to read it: which of its images (``scene``) or which pixel
        size (``mpp``) to use.

    Examples
    --------
    >>> with open_slide("slide.svs") as slide:  # doctest: +SKIP
    ...     pixels = slide.read(mpp=1.0, centre_um=(900, 900), size_px=(512, 512))
    >>> open_slide("scan.npy", opener=NpySlide, mpp=0.5)  # doctest: +SKIP
    """
    path = Path(path)
    if is_remote(path):
        raise SlideError(
            f"{without_secrets(str(path))}: got an address; expected a local file; download it, or "
            "import it with `wsi-seg tile`, which reads addresses"
        )
    slide = opener(path, mpp=mpp) if opener else open_installed(path, mpp=mpp)
    if slide is None:
        return _open_own(path, mpp, window, scene)
    if scene not in {None, "1"}:
        raise _one_scene(path, scene)
    return slide


def _open_own(path: Path, mpp: float | None, window: Window | None, scene: str | None) -> Slide:
    """Open a file with one of this package's readers."""
    member = split_member(path)
    if member is None and path.is_dir() and is_zarr(path):
        from wsi_seg.slides.omezarr import OmeZarrSlide

        return OmeZarrSlide(path, mpp=mpp, scene=scene)
    head = b"" if member or path.is_dir() else _head(path)
    if head[:4] in _TIFF_MAGIC and path.suffix.lower() not in OPENSLIDE_SUFFIXES:
        return _open_tiff(path, mpp, scene)
    if scene not in {None, "1"}:
        raise _one_scene(path, scene)
    if member is not None:
        return _open_member(*member, mpp=mpp, window=window)
    if path.is_dir() or head[128:] == b"DICM" or path.suffix.lower() in DICOM_SUFFIXES:
        with naming_extra(str(path)):
            from wsi_seg.slides.dicom import open_dicom

        return open_dicom(path, mpp=mpp, window=window)
    return _open_file(path, head, mpp)


def _one_scene(path: Path, scene: str | None) -> SlideError:
    return SlideError(f"{path}: got --scene {scene}; expected 1, because it holds one image")


def _head(path: Path) -> bytes:
    with translate_errors(path, "cannot be read: ", "a slide"), path.open("rb") as file:
        head = file.read(132)
    if not head:
        raise SlideError(f"{path}: is empty; expected a slide")
    return head


def _open_file(path: Path, head: bytes, mpp: float | None) -> Slide:
    """Open a file that is neither TIFF nor DICOM."""
    if path.suffix.lower() in OPENSLIDE_SUFFIXES:
        with naming_extra(str(path)):
            from wsi_seg.slides.openslide import OpenSlideSlide

        return OpenSlideSlide(path, mpp=mpp)
    if volume_suffix(path):
        from wsi_seg.slides.volume import depth

        raise SlideError(
            f"{path}: is a volume of {depth(path)} slices; name one of them, as {path}/z0000"
        )
    known = known_container(path, head)
    if known:
        raise UnsupportedSlideError(f"{path}: {known}")
    from wsi_seg.slides.image import open_image

    return open_image(path, mpp=mpp)


def _open_member(whole: Path, z: int, *, mpp: float | None, window: Window | None) -> Slide:
    if whole.is_dir():
        with naming_extra(str(whole)):
            from wsi_seg.slides.dicom import open_dicom_slice

        return open_dicom_slice(whole, z, mpp=mpp, window=window)
    from wsi_seg.slides.volume import open_slice

    return open_slice(whole, z, mpp=mpp, window=window)


def _open_tiff(path: Path, mpp: float | None, scene: str | None) -> Slide:
    """Open a TIFF with this package's reader; fall back to OpenSlide for kinds only it reads."""
    from wsi_seg.slides.tiff import TiffSlide

    try:
        return TiffSlide(path, mpp=mpp, scene=scene)
    except UndecidedSlideError:
        raise
    except UnsupportedSlideError as ours:
        try:
            with naming_extra(str(path)):
                from wsi_seg.slides.openslide import OpenSlideSlide, recognises
        except MissingLibraryError:
            raise ours from None
        if scene is not None or not recognises(path):
            raise
        return OpenSlideSlide(path, mpp=mpp)
