"""Owns what is stored about slides, predictions and labels: typed, checked where it is read."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Required, Self, TypedDict, get_args

from pydantic import PlainSerializer, PlainValidator, TypeAdapter, ValidationError

from wsi_seg.choices import Save
from wsi_seg.classes import ClassMode, ClassTable
from wsi_seg.errors import StoreError

# What inference may save of a prediction.
SAVED: tuple[Save, ...] = get_args(Save)

# Tile of a prediction that could not be read: its y, its x, and the reason.
Quarantined = tuple[int, int, str]


_ClassRow = TypedDict(
    "_ClassRow", {"name": Required[str], "colour": str | None, "from": list[str]}, total=False
)


class _ClassRows(TypedDict):
    mode: ClassMode
    table: list[_ClassRow]


_ROWS: TypeAdapter[list[_ClassRow] | _ClassRows] = TypeAdapter(list[_ClassRow] | _ClassRows)


def _class_table(rows: object) -> ClassTable:
    """Class table of its JSON, or of itself."""
    if isinstance(rows, ClassTable):
        return rows
    return ClassTable.from_json(_ROWS.validate_python(rows))


_Classes = Annotated[ClassTable, PlainValidator(_class_table), PlainSerializer(ClassTable.to_json)]


class _Info:
    """Turns a frozen dataclass into the attributes of a group, and back."""

    __slots__ = ()

    @classmethod
    def from_json(cls, attributes: Mapping[str, object], path: Path) -> Self:
        """Take the values out of the attributes of a group; others are left alone.

        Parameters
        ----------
        attributes
            Plain JSON values.
        path
            The group, for the message.

        Raises
        ------
        StoreError
            If a value does not fit; names it.
        """
        kind: Any = cls  # mypy takes the class of a dataclass for unhashable
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
        """Give them as plain JSON values; what is None is left out."""
        kind: Any = type(self)
        values: dict[str, object] = _adapter(kind).dump_python(self, mode="json", exclude_none=True)
        return values


@cache
def _adapter(kind: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """File that a slide was made from.

    Parameters
    ----------
    name
        Of the file, without its folder.
    bytes
        Its size.
    sha256_of_ends
        SHA-256 of its first and last bytes.
    """

    name: str
    bytes: int
    sha256_of_ends: str


@dataclass(frozen=True, slots=True)
class LevelInfo:
    """How one level is encoded, and why it is not a copy of the file's; empty if it is."""

    encoding: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreInfo(_Info):
    """What `wsi-seg tile` stores about a slide.

    Parameters
    ----------
    source
        The file; None where a store was written by other code.
    codec
        How levels were to be encoded.
    scene
        Image of a file with several, counted from 0; None where there is one.
    window
        Grey values shown as black and white, if they were given.
    icc
        SHA-256 of the ICC profile by which colours were converted to sRGB; None where they are
        those of the file.
    inside
        Part of the slide that was tiled; None for all of it.
    slice_mm
        Millimetres to the next slice of the volume; None where it is a slice of none.
    mpp_source
        Where the mpp is from, such as ``aperio``.
    reader
        What has read the file, such as ``svs``.
    levels
        How each level is encoded, finest first.
    versions
        Of libraries, by name.

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
        """Pick what decides the bytes of a store: only with the same it is continued, or kept.

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
    """What inference stores about the prediction of one slide.

    Parameters
    ----------
    slide
        Name of the slide; None where it is unknown.
    slide_extent
        Height and width of the slide, which a prediction at a lower resolution does not show.
    classes
        Class of each channel.
    saved
        Whether probabilities, class ids or both are there.
    settings
        All that decides the prediction's bytes.
    notes
        Sentences about overrides and repairs.
    training
        How the model was trained, as its checkpoint says.
    min_object_um2
        Area below which nothing is an object of the model's classes; 0 for none.
    tiles, tiles_skipped, tiles_skipped_by_first_pass
        Tiles that were predicted, left out as background, and not needed a second time with
        adaptive overlap; None where that is not known.
    quarantined
        Tiles that could not be read; the prediction is 0 there.
    seam_score, seam_score_first
        See `wsi_seg.inference.seams`; the latter before adaptive overlap.
    calibration
        Method by which probabilities were calibrated afterwards; None if they were not.
    calibration_tables, calibrated_from
        SHA-256 of each class's table, and digest of the prediction before.

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
        """Side of the model's tiles in pixels; None if several models saw different ones."""
        side = self.settings.get("tile_px")
        return side if isinstance(side, int) and side > 0 else None

    @property
    def slide_digest(self) -> str:
        """Digest of the slide's store at the time; empty where it is unknown."""
        return str(self.settings.get("slide_digest", ""))

    @property
    def learned_from_slide(self) -> bool:
        """Whether the model was trained on this slide."""
        return self.training.get("learned_from_slide") is True


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelInfo(_Info):
    """What is stored about a label.

    Parameters
    ----------
    classes
        Classes of the ids 1, 2, 3 ...; none where pixels are values.
    trusted
        Whether a tissue mask counts where it is empty, too: then nothing of the slide is predicted.
    slide_extent
        See `PredictionInfo`; None for labels of a slide itself.
    note
        What the module that wrote it reads again, such as the rule it was decided by.
    """

    kind: Literal["label"] = "label"
    classes: _Classes = ClassTable(())  # noqa: RUF009 (frozen)
    trusted: bool = False
    slide_extent: tuple[int, int] | None = None
    note: Mapping[str, object] = field(default_factory=dict)
