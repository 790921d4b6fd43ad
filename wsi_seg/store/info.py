"""Owns the metadata of slides, predictions and labels as typed, validated dataclasses."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Required, Self, TypedDict, get_args

from pydantic import PlainSerializer, PlainValidator, TypeAdapter, ValidationError

from wsi_seg.choices import Save
from wsi_seg.classes import ClassMode, ClassTable
from wsi_seg.errors import StoreError

# Possible contents of a prediction.
SAVED: tuple[Save, ...] = get_args(Save)

# Unreadable tile of a prediction: y, x and reason.
Quarantined = tuple[int, int, str]


_ClassRow = TypedDict(
    "_ClassRow", {"name": Required[str], "colour": str | None, "from": list[str]}, total=False
)


class _ClassRows(TypedDict):
    mode: ClassMode
    table: list[_ClassRow]


_ROWS: TypeAdapter[list[_ClassRow] | _ClassRows] = TypeAdapter(list[_ClassRow] | _ClassRows)


def _class_table(rows: object) -> ClassTable:
    """Parse a class table from JSON; return a class table unchanged."""
    if isinstance(rows, ClassTable):
        return rows
    return ClassTable.from_json(_ROWS.validate_python(rows))


_Classes = Annotated[ClassTable, PlainValidator(_class_table), PlainSerializer(ClassTable.to_json)]


class _Info:
    """Converts frozen dataclasses to and from the attributes of a group."""

    __slots__ = ()

    @classmethod
    def from_json(cls, attributes: Mapping[str, object], path: Path) -> Self:
        """Validate the attributes of a group; unknown attributes are ignored.

        Parameters
        ----------
        attributes
            JSON values.
        path
            Group to name in error messages.

        Raises
        ------
        StoreError
            If a value is invalid.
        """
        kind: Any = cls  # mypy considers dataclass types unhashable
        try:
            info: Self = _adapter(kind).validate_python(dict(attributes))
        except ValidationError as error:
            first = error.errors()[0]
            key, expected = ".".join(map(str, first["loc"])), first["msg"]
            raise StoreError(
                f"{path}: got {key}={str(first['input'])[:80]!r}; "
                f"{expected.replace('Input should be', 'expected')}; make it again with --overwrite"
            ) from error
        return info

    def to_json(self) -> dict[str, object]:
        """Return the values as JSON values; None is omitted."""
        kind: Any = type(self)
        values: dict[str, object] = _adapter(kind).dump_python(self, mode="json", exclude_none=True)
        return values


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """File that a slide was tiled from.

    Parameters
    ----------
    name
        Name of the file, without its folder.
    bytes
        Size of the file.
    sha256_of_ends
        SHA-256 of its first and last bytes.
    """

    name: str
    bytes: int
    sha256_of_ends: str


@dataclass(frozen=True, slots=True)
class LevelInfo:
    """Encoding of one level, and why it is not a verbatim copy; empty if it is."""

    encoding: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreInfo(_Info):
    """Metadata that `wsi-seg tile` stores with a slide.

    Parameters
    ----------
    source
        The slide file; None if the store was written by other software.
    codec
        The requested codec.
    scene
        Number (from 1) of the image in a file with several, if one was requested.
    window
        Grey values shown as black and white, if they were set.
    icc
        SHA-256 of the ICC profile from which colours were converted to sRGB; None if they were not
        converted.
    inside
        Part of the slide that was tiled; None for the whole slide.
    slice_mm
        Millimetres to the next slice of the volume; None if the slide is not part of a volume.
    mpp_source
        Source of the mpp, such as ``aperio``.
    reader
        Reader of the file, such as ``svs``.
    levels
        Encoding of each level, finest first.
    versions
        Versions of libraries, by name.

    Examples
    --------
    >>> StoreInfo(reader="svs").to_json()["reader"]
    'svs'
    """

    kind: Literal["slide"] = "slide"
    source: SourceInfo | None = None
    codec: str = ""
    scene: int | None = None
    window: tuple[float, float] | None = None
    icc: str | None = None
    inside: str | None = None
    slice_mm: float | None = None
    mpp_source: str = ""
    reader: str = ""
    levels: tuple[LevelInfo, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    def settings(self, mpp: float | None) -> dict[str, object]:
        """Return the settings that determine the bytes of a store, to compare before resuming.

        Parameters
        ----------
        mpp
            Micrometres per pixel of level 0.
        """
        known = self.to_json()
        part = {} if self.inside is None else {"inside": self.inside}
        names = ("source", "codec", "scene", "window", "icc")
        return {name: known.get(name) for name in names} | {"mpp": mpp} | part


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionInfo(_Info):
    """Metadata that inference stores with the prediction of a slide.

    Parameters
    ----------
    slide
        Name of the slide; None if unknown.
    slide_extent
        Height and width of the slide's level 0 in pixels; a prediction can be smaller.
    classes
        Class of each channel.
    saved
        Whether probabilities, class ids or both are stored.
    settings
        Everything that determines the bytes of the prediction.
    notes
        Sentences about overrides and repairs.
    training
        Training metadata of the checkpoint.
    min_object_um2
        Smallest area of an object of the model's classes, in square micrometres; 0 for no limit.
    tiles, tiles_skipped, tiles_skipped_by_first_pass
        Number of tiles that were predicted, skipped as background, and not predicted a second time
        with adaptive overlap; None if unknown.
    quarantined
        Unreadable tiles, where the prediction is 0.
    seam_score, seam_score_first
        Seam score, see `wsi_seg.inference.seams`, and that of the first pass of adaptive overlap.
    calibration
        Method with which probabilities were calibrated afterwards; None if they were not.
    calibration_tables, calibrated_from
        SHA-256 of each class's table, and digest of the prediction before calibration.

    Examples
    --------
    >>> PredictionInfo(slide="a", settings={"tile_px": 512}).tile_px
    512
    """

    kind: Literal["prediction"] = "prediction"
    slide: str | None = None
    slide_extent: tuple[int, int] | None = None
    classes: _Classes = ClassTable(())  # noqa: RUF009 (frozen)
    saved: Save = "both"
    settings: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    training: Mapping[str, object] = field(default_factory=dict)
    min_object_um2: float = 0.0
    tiles: int | None = None
    tiles_skipped: int | None = None
    tiles_skipped_by_first_pass: int | None = None
    quarantined: tuple[Quarantined, ...] = ()
    seam_score: float | None = None
    seam_score_first: float | None = None
    calibration: str | None = None
    calibration_tables: Mapping[str, str] = field(default_factory=dict)
    calibrated_from: str | None = None

    @property
    def tile_px(self) -> int | None:
        """Side of the model's tiles in pixels; None if the members use different ones."""
        side = self.settings.get("tile_px")
        return side if isinstance(side, int) and side > 0 else None

    @property
    def slide_digest(self) -> str:
        """Digest of the slide's store when it was predicted; empty if unknown."""
        return str(self.settings.get("slide_digest", ""))

    @property
    def learned_from_slide(self) -> bool:
        """Whether the model was trained on this slide."""
        return self.training.get("learned_from_slide") is True


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelInfo(_Info):
    """Metadata of a label.

    Parameters
    ----------
    classes
        Classes of the ids 1, 2, 3 ...; empty if pixels are not class ids.
    trusted
        Whether an empty tissue mask is correct, so that nothing of the slide is predicted.
    slide_extent
        See `PredictionInfo`; None for labels of a slide.
    note
        Data of the module that wrote the label, such as its decision rule.
    """

    kind: Literal["label"] = "label"
    classes: _Classes = ClassTable(())  # noqa: RUF009 (frozen)
    trusted: bool = False
    slide_extent: tuple[int, int] | None = None
    note: Mapping[str, object] = field(default_factory=dict)
