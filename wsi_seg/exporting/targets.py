"""Owns the options of an export, and its report."""

from dataclasses import dataclass
from pathlib import Path

from wsi_seg.batch import SlidesReport, elsewhere_lines
from wsi_seg.choices import Dialect, Ngff, ObjectType
from wsi_seg.counts import counted
from wsi_seg.errors import OutputError
from wsi_seg.masks.inside import Inside
from wsi_seg.postprocess.rule import Rule


@dataclass(frozen=True, slots=True)
class ExportTargets:
    """Paths to write by format, None to skip a format, and options of the formats.

    Parameters
    ----------
    geojson, geoparquet, asap
        Folders for the outlines of each slide: GeoJSON (``.geojson.gz`` if ``packed``), GeoParquet,
        ASAP XML.
    qupath_project
        Folder for a QuPath project of all slides with their outlines; requires ``source``.
    table
        Folder for object tables as csv and parquet; probabilities are nan if they were not saved.
    coco
        COCO file of all slides, in level-0 pixels.
    png, overview
        Folders for one PNG of class ids per slide (one per class, named by its id and name, if
        classes overlap), and for one overview picture per slide.
    ome_tiff
        Folder for pyramidal OME-TIFFs of the label map, and of the probabilities if they were
        saved.
    ome_zarr
        Folder for one OME-Zarr per slide: probabilities with the labels ``classes`` and
        ``objects``, of version ``ngff``; one file each if ``zipped``.
    spatialdata
        Folder for one SpatialData store per slide; requires the extra ``spatialdata``.
    dicom_seg, dicom_ann
        Folders for one folder of DICOM segmentations per slide, and for one file of DICOM
        annotations per slide; both require DICOM slides as ``source`` and the extra ``dicom``.
    rle
        csv file of run-length encoded masks of all slides, in pixels of the prediction, whose size
        each row states.
    kind
        Object type of GeoJSON in QuPath; see `write_geojson`.
    min_area_um2
        Objects smaller than this, in um² (px² of level 0 if mpp is unknown), are not outlined. None
        takes four pixels of the prediction.
    simplify_um
        How far outlines may move; see `outlines`.
    rule
        Rule of the decision to export, which is stored as the label ``decision``; None exports the
        label map of inference, without objects below the minimum area of the model card.
    packed
        Whether GeoJSON files are gzipped.
    dialect
        Run-length encoding; see `annotations.rle`.
    source, codes
        Source slides of the predictions, and a file with codes of classes; see `class_codes`.
    probabilities
        Whether DICOM segmentations are FRACTIONAL, with probabilities instead of class ids.
    ngff, zipped
        OME-Zarr version, and whether each is a single ``.ozx`` file, which requires 0.5.
    overwrite
        Whether to replace files that were not written by an export or were changed since.
    inside
        Part of each slide to export; None exports whole slides.

    Raises
    ------
    OutputError
        If ``zipped`` is combined with OME-Zarr 0.4, DICOM or a QuPath project lacks ``source``, or
        ``probabilities`` lacks ``dicom_seg``.

    Examples
    --------
    >>> targets = ExportTargets(geojson=Path("found"), rule=Rule(0.7, 0.4))
    """

    geojson: Path | None = None
    geoparquet: Path | None = None
    asap: Path | None = None
    qupath_project: Path | None = None
    table: Path | None = None
    coco: Path | None = None
    png: Path | None = None
    overview: Path | None = None
    ome_tiff: Path | None = None
    ome_zarr: Path | None = None
    spatialdata: Path | None = None
    dicom_seg: Path | None = None
    dicom_ann: Path | None = None
    rle: Path | None = None
    kind: ObjectType = "auto"
    min_area_um2: float | None = None
    simplify_um: float | None = None
    rule: Rule | None = None
    packed: bool = False
    dialect: Dialect = "absolute"
    source: Path | None = None
    codes: Path | None = None
    probabilities: bool = False
    ngff: Ngff = "0.5"
    zipped: bool = False
    overwrite: bool = False
    inside: Inside | None = None

    def __post_init__(self) -> None:
        if self.zipped and self.ngff != "0.5":
            raise OutputError(
                f"got OME-Zarr {self.ngff} as one file; expected 0.5, the only one with .ozx"
            )
        if self.probabilities and self.dicom_seg is None:
            raise OutputError(
                "got --probabilities without --dicom-seg; expected both: the option makes DICOM "
                "segmentations hold probabilities instead of class ids; OME-TIFF and OME-Zarr "
                "always hold both"
            )
        if self.source is None and self.qupath_project is not None:
            raise OutputError(
                "got no slides; expected those that were predicted, as --source: a QuPath project "
                "links to the files of its slides"
            )
        if self.source is None and (self.dicom_seg or self.dicom_ann):
            raise OutputError(
                "got no DICOM slides; expected those that were predicted, as --source: DICOM "
                "exports refer to the patient, study and frame of reference of the slide"
            )

    @property
    def outlined(self) -> bool:
        """Whether a requested format has outlines."""
        outlines = (self.geojson, self.geoparquet, self.asap, self.coco, self.qupath_project)
        return any((*outlines, self.spatialdata, self.dicom_ann))

    @property
    def one_id(self) -> tuple[str, ...]:
        """Options of requested formats that have one class per pixel, so classes cannot overlap."""
        seg = None if self.probabilities else self.dicom_seg
        paths = {"--dicom-seg": seg, "--spatialdata": self.spatialdata}
        return tuple(name for name, path in paths.items() if path is not None)

    @property
    def numbered(self) -> bool:
        """Whether a requested format has objects, outlined or not."""
        return self.outlined or any((self.table, self.ome_zarr))


@dataclass(frozen=True, slots=True)
class ExportReport(SlidesReport[str]):
    """Report of an export.

    Parameters
    ----------
    files
        Files that were written.
    objects
        Number of outlined objects by slide.
    left_out
        Number of objects that were too small to be outlined, by slide.
    min_area
        Minimum area with its unit, by slide.
    warnings
        Tiles that inference could not read, probabilities that it did not save, shortened names.
    elsewhere
        Number of slides that other processes export or have exported.
    """

    files: tuple[str, ...]
    objects: dict[str, int]
    left_out: dict[str, int]
    min_area: dict[str, str]
    warnings: tuple[str, ...] = ()
    elsewhere: int = 0

    def lines(self) -> list[str]:
        """Report as lines of text."""
        lines = []
        for slide, count in self.objects.items():
            small = self.left_out[slide]
            rest = f", without {small} below {self.min_area[slide]}" if small else ""
            lines.append(f"{slide}: {counted(count, 'object')}{rest}")
        if any(self.left_out.values()):
            lines.append("--min-area-um2 0 keeps small objects")
        lines += [*self.warnings, *(f"wrote {file}" for file in self.files)]
        return [*lines, *elsewhere_lines(self.elsewhere)]
