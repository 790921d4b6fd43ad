"""Owns recipes: what a training run is, written in one YAML file and checked strictly.

A key that does not exist is an error that names the file, the key and the nearest valid key;
nothing is guessed and no default hides a misspelling. Paths are relative to the recipe's file.
"""

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wsi_seg.classes import ClassTable
from wsi_seg.errors import ConfigError, OutputError

# A recipe fits on a page; a file beyond this is not one.
_MAX_BYTES = 2**20

_Share = Annotated[float, Field(ge=0, le=1)]


class _Section(BaseModel):
    """Part of a recipe: unknown keys refused, values immutable and never converted by guess."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ClassConfig(_Section):
    """One structure to segment: its name in the annotations, and ``#rrggbb`` or null."""

    name: str
    colour: str | None = None


class DataConfig(_Section):
    """Which slides are learned from, and which are held out.

    Parameters
    ----------
    stores
        Collections made by ``wsi-seg tile``.
    label
        Name under ``labels/`` of the truth.
    train
        Names of slides; null takes every slide that has the label and is not held out.
    validation
        Names of slides, or the fraction of slides that is drawn (by ``seed``) and held out;
        0 holds out none, and then the last epoch counts as the best.
    """

    stores: tuple[Path, ...] = Field(min_length=1)
    label: str = "annotations"
    train: tuple[str, ...] | None = None
    validation: tuple[str, ...] | Annotated[float, Field(ge=0, lt=1)] = 0.2


class MixConfig(_Section):
    """Share of an epoch's patches that each layer of the importance map gets; they sum to 1."""

    objects: _Share = 0
    tissue: _Share = 0
    background: _Share = 0

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.objects + self.tissue + self.background
        if abs(total - 1) > 1e-6:
            raise ValueError(f"shares sum to {total:g}; expected 1")
        return self


class SamplingConfig(_Section):
    """Where patches are drawn.

    Parameters
    ----------
    mix
        Shares of the layers.
    patches_per_epoch
        Rounded up to whole batches; null draws each object once, the other layers in proportion.
    cell_um
        Side of a cell of the importance map in micrometres.
    cell_px
        The same in px of level 0, used where ``mpp`` is null.
    """

    mix: MixConfig = MixConfig(objects=0.5, tissue=0.4, background=0.1)
    patches_per_epoch: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = 1000
    cell_um: float = Field(default=32.0, gt=0)
    cell_px: int = Field(default=64, ge=1)


class ModelConfig(_Section):
    """Network; see `wsi_seg.models.build_network`.

    ``weights`` is null (random), the name of published weights such as ``imagenet``, or the path
    of a ``.safetensors`` file.
    """

    architecture: str = "Unet"
    encoder: str = "efficientnet-b0"
    weights: str | None = None

    @property
    def start(self) -> str | Path | None:
        """Weights to start from: a path where a file is named."""
        if self.weights is not None and self.weights.endswith(".safetensors"):
            return Path(self.weights)
        return self.weights


class LossConfig(_Section):
    """Weight of each loss term; 0 leaves the term out."""

    bce: float = Field(default=1.0, ge=0)
    dice: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _any_term(self) -> Self:
        if self.bce + self.dice == 0:
            raise ValueError("all loss weights are 0; expected at least one above 0")
        return self


class OptimizerConfig(_Section):
    """Optimiser and its settings."""

    name: Literal["adamw"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)


class ScheduleConfig(_Section):
    """How the learning rate changes over the run, step by step.

    ``one_cycle`` warms up over the first tenth and then falls to nothing along a cosine.
    """

    name: Literal["constant", "cosine", "one_cycle"] = "one_cycle"


class TrainConfig(_Section):
    """The run.

    Parameters
    ----------
    epochs, batch_size
        Upper limit of epochs; patches per step.
    precision
        ``auto`` is bf16 where the hardware multiplies it natively.
    workers
        Processes that load patches; 0 loads in the training process.
    max_minutes
        No epoch is begun that would likely end later than this; null sets no limit.
    early_stop
        Validations without gain after which training ends; null never ends early.
    validate_every
        Epochs from one validation to the next; the last epoch is always validated.
    validation_overlap
        Overlap of tiles when validation slides are predicted.
    """

    epochs: int = Field(default=20, ge=1)
    batch_size: int = Field(default=8, ge=1)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    workers: int = Field(default=1, ge=0, le=256)
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    early_stop: Annotated[int, Field(ge=1)] | None = None
    validate_every: int = Field(default=1, ge=1)
    validation_overlap: float = Field(default=0.25, ge=0, le=0.9)


class Recipe(_Section):
    """A training run.

    Parameters
    ----------
    name
        Free text for people.
    seed
        Decides slides held out, patches drawn, augmentation and first weights.
    classes
        In the order of the model's output channels.
    mpp
        Micrometres per px that the model works at; null takes px of level 0 as they are.
    patch_px
        Side of a training patch at that mpp; also the model's tile at inference.
    augment
        Preset: ``none``, ``d4`` (flips and quarter turns), ``light`` (d4 and slight changes of
        colour, blur and noise), or ``stain`` (any turn, scale, and strong changes of colour).
    """

    name: str = "model"
    seed: int = Field(default=0, ge=0, lt=2**63)
    classes: tuple[ClassConfig, ...] = Field(min_length=1)
    data: DataConfig
    mpp: Annotated[float, Field(gt=0)] | None
    patch_px: int = Field(default=256, ge=8, le=4096)
    sampling: SamplingConfig = SamplingConfig()
    augment: Literal["none", "d4", "light", "stain"] = "d4"
    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()

    @property
    def class_table(self) -> ClassTable:
        """Classes with their ids and colours."""
        return ClassTable.named([c.name for c in self.classes], [c.colour for c in self.classes])


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    path
        YAML file; paths in it are relative to its folder.
    overrides
        Settings of the form ``train.epochs=3``; the value is read as YAML, a number picks an
        entry of a list (``classes.0.name=tumour``).

    Raises
    ------
    ConfigError
        If the file cannot be read, a key is unknown or missing, or a value does not fit.
    """
    values = _read_yaml(path)
    for override in overrides:
        _apply(values, override)
    try:
        # By way of JSON, whose lists and numbers pydantic's strict mode takes for what they are.
        recipe = Recipe.model_validate_json(json.dumps(values))
        recipe.class_table  # noqa: B018 - checks names and colours
    except ValidationError as error:
        problems = "; ".join(_explain(detail["loc"], detail["type"], detail["msg"])
                             for detail in error.errors()[:5])  # fmt: skip
        raise ConfigError(f"{path}{_set_note(overrides)}: {problems}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}{_set_note(overrides)}: classes: {error}") from error
    return _absolute(recipe, path.parent.resolve())


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe with all its defaults; `load_recipe` gives the same one back.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


class _Loader(yaml.SafeLoader):
    """YAML of recipes: no aliases, no repeated keys; booleans and floats as in YAML 1.2."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, "got an alias (*name); expected the value written out", mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        keys = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if keys.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"got key {key.value!r} twice; expected it once", key.start_mark
                )
        return super().construct_mapping(node, deep)


# YAML 1.1 reads "1e-3" as text and "no" as false; dates have no place in a recipe.
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if not tag.endswith((":bool", ":timestamp", ":float"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.\d+|\d+\.\d*|\d+(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|Inf)|\.(nan|NaN)"),
    list("-+.0123456789"),
)


def _read_yaml(path: Path) -> dict[str, object]:
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise ConfigError(f"{path} has {size} bytes; expected a recipe of one page")
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no recipe {path}; expected a YAML file") from error
    except OSError as error:
        raise ConfigError(f"cannot read recipe {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text; expected a YAML file in UTF-8") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} is not a recipe: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}; expected keys and values")
    return values


def _apply(values: dict[str, object], override: str) -> None:
    """Put one ``a.b=c`` into the values."""
    keys, equals, text = override.partition("=")
    if not equals or not keys:
        raise ConfigError(f"got --set {override!r}; expected KEY.KEY=VALUE, e.g. train.epochs=3")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"--set {override}: cannot read the value: {reason}") from error
    *path, last = keys.split(".")
    place: object = values
    for key in path:
        place = _step(place, key, override)
    if isinstance(place, dict):
        place[last] = value
    elif isinstance(place, list) and last.isdecimal() and int(last) < len(place):
        place[int(last)] = value
    else:
        raise ConfigError(f"--set {override}: there is no place named {last!r}")


def _step(place: object, key: str, override: str) -> object:
    if isinstance(place, dict):
        return place.setdefault(key, {})
    if isinstance(place, list) and key.isdecimal() and int(key) < len(place):
        return place[int(key)]
    raise ConfigError(f"--set {override}: {key!r} is not inside a section or list")


def _explain(loc: Sequence[int | str], kind: str, message: str) -> str:
    """One problem as a sentence that names the key, and the nearest one where it is unknown."""
    keys = ".".join(str(part) for part in loc if not _names_a_type(part)) or "recipe"
    if kind != "extra_forbidden":
        return f"{keys}: {message.removeprefix('Value error, ')}"
    valid = _keys_at(loc[:-1])
    near = difflib.get_close_matches(str(loc[-1]), valid, n=1, cutoff=0.5)
    hint = f"nearest valid key: {near[0]!r}" if near else f"valid keys: {', '.join(valid)}"
    return f"unknown key {keys!r}; {hint}"


def _names_a_type(part: int | str) -> bool:
    """Whether pydantic put this part in to tell the members of a union apart."""
    return isinstance(part, str) and (part.startswith("constrained-") or "[" in part)


def _keys_at(loc: Iterable[int | str]) -> list[str]:
    """Return the valid keys of the section at this place."""
    section: type[BaseModel] = Recipe
    for part in loc:
        if isinstance(part, int):
            section = ClassConfig  # the only list of sections
        else:
            annotation = section.model_fields[part].annotation
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                section = annotation
    return list(section.model_fields)


def _set_note(overrides: Sequence[str]) -> str:
    return "".join(f" --set {override}" for override in overrides)


def _absolute(recipe: Recipe, folder: Path) -> Recipe:
    """Recipe whose paths do not depend on where it is read."""
    stores = tuple(folder / path for path in recipe.data.stores)
    update: dict[str, object] = {"data": recipe.data.model_copy(update={"stores": stores})}
    start = recipe.model.start
    if isinstance(start, Path):
        update["model"] = recipe.model.model_copy(update={"weights": str(folder / start)})
    return recipe.model_copy(update=update)
