"""Owns what an export is asked for, and what it reports."""

from dataclasses import dataclass
from pathlib import Path

from wsi_seg.batch import SlidesReport, elsewhere_lines
from wsi_seg.choices import Dialect, Ngff, ObjectType
from wsi_seg.errors import OutputError
from wsi_seg.masks.inside import Inside
from wsi_seg.postprocess.rule import Rule


@dataclass(frozen=True, slots=True)
class ExportTargets:
    """Where to write which format; None leaves a format out.

    Parameters
    ----------
    geojson, geoparquet, asap
        Folders for the outlines of each slide: GeoJSON (``.geojson.gz`` if ``packed``), GeoParquet,
        ASAP's XML.
    qupath_project
        Folder for a QuPath project of all slides, with their outlines; it needs ``source``.
    table
        Folder for object tables, as csv and parquet; probabilities are nan if none were saved.
    coco
        One COCO file for all slides; polygons count pixels of level 0.
    png, overview
        Folders for one PNG of class ids (of overlapping classes one each, named by its id and its
        name), one overview picture per slide.
    ome_tiff
        Folder for pyramidal OME-TIFFs of the label map, and of the probabilities if they were
        saved.
    ome_zarr
        Folder for one OME-Zarr per slide: probabilities with the labels ``classes`` and
        ``objects``, of version ``ngff``; one file each if ``zipped``.
    spatialdata
        Folder for one SpatialData store per slide; needs the extra of that name.
    dicom_seg, dicom_ann
        Folders for the DICOM segmentations (a folder each) and annotations of each slide; they need
        ``source``, which are DICOM slides, and the extra ``dicom``.
    rle
        One csv file of run-length encoded masks of all slides. Runs count pixels of the prediction,
        whose size is given with them.
    kind
        What QuPath makes of the objects of GeoJSON; see `write_geojson`.
    min_area_um2
        Objects smaller than this are left out of the outlines; px² of level 0 where mpp is unknown.
        None takes four pixels of the prediction.
    simplify_um
        How far outlines may move; see `outlines`.
    rule
        Makes the decision that is exported, which is kept as the label ``decision``; None exports
        the label map that inference wrote, without what the model's card calls too small.
    packed
        Whether polygon files are gzipped.
    dialect
        Of the run-length encoding; see `annotations.rle`.
    source, codes
        Slides that were predicted, and a file with the codes of classes; see `class_codes`.
    probabilities
        Whether DICOM segmentations are fractional: probabilities in place of class ids.
    ngff, zipped
        Version of OME-Zarr, and whether each is one ``.ozx`` file, which only 0.5 has.
    overwrite
        Whether files are replaced that no export wrote, or that were changed since.
    inside
        Part of each slide that is exported; outside is nothing. None is all of it.

    Raises
    ------
    OutputError
        If OME-Zarr 0.4 is to be one file, DICOM or a QuPath project are to be made without the
        slides, or probabilities without DICOM segmentations.

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
                f"got OME-Zarr {self.ngff} as one file; expected 0.5, which alone has .ozx"
            )
        if self.probabilities and self.dicom_seg is None:
            raise OutputError(
                "got --probabilities without --dicom-seg; expected both: it is DICOM segmentations "
                "that hold probabilities in place of class ids; OME-TIFF and OME-Zarr hold both"
            )
        if self.source is None and self.qupath_project is not None:
            raise OutputError(
                "got no slides; expected those that were predicted, as --source: a QuPath project "
                "says where its slides are"
            )
        if self.source is None and (self.dicom_seg or self.dicom_ann):
            raise OutputError(
                "got no DICOM slides; expected those that were predicted, as --source: DICOM of a "
                "slide has its patient, study and place"
            )

    @property
    def outlined(self) -> bool:
        """Whether a format has outlines."""
        outlines = (self.geojson, self.geoparquet, self.asap, self.coco, self.qupath_project)
        return any((*outlines, self.spatialdata, self.dicom_ann))

    @property
    def one_id(self) -> tuple[str, ...]:
        """Options whose formats have one class for each pixel, so that none may overlap."""
        seg = None if self.probabilities else self.dicom_seg
        wanted = {"--dicom-seg": seg, "--spatialdata": self.spatialdata}
        return tuple(name for name, path in wanted.items() if path is not None)

    @property
    def numbered(self) -> bool:
        """Whether a format has objects."""
        return self.outlined or any((self.table, self.ome_zarr))


@dataclass(frozen=True, slots=True)
class ExportReport(SlidesReport[str]):
    """What was exported.

    Parameters
    ----------
    files
        That were written.
    objects
        Number of objects that are large enough, by slide.
    left_out
        Number of those that outlines lack, as they are too small.
    min_area
        Area below which they are, with its unit.
    warnings
        Tiles that inference could not read, and probabilities it did not save.
    elsewhere
        Number of slides that others of several processes export, or have.
    """

    files: tuple[str, ...]
    objects: dict[str, int]
    left_out: dict[str, int]
    min_area: dict[str, str]
    warnings: tuple[str, ...] = ()
    elsewhere: int = 0

    def lines(self) -> list[str]:
        """Figures as sentences for people."""
        lines = []
        for slide, count in self.objects.items():
            small = self.left_out[slide]
            rest = f", without {small} below {self.min_area[slide]}" if small else ""
            lines.append(f"{slide}: {count} objects{rest}")
        if any(self.left_out.values()):
            lines.append("--min-area-um2 0 keeps small ones")
        lines += [*self.warnings, *(f"wrote {file}" for file in self.files)]
        return [*lines, *elsewhere_lines(self.elsewhere)]
