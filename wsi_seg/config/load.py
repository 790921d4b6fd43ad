"""Owns reading and writing recipes, and the error message for each invalid key or value.

An unknown key is an error that names the file, the key and the nearest valid key, so that no
misspelling goes unnoticed. Paths are relative to the recipe's file.
"""

import difflib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

import yaml
from pydantic import BaseModel, ValidationError

from wsi_seg.config.recipe import Recipe
from wsi_seg.config.text import apply_override, read_yaml
from wsi_seg.errors import ConfigError
from wsi_seg.files.address import is_remote
from wsi_seg.files.atomic import write_atomic


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe.

    Parameters
    ----------
    path
        YAML file; paths in it are relative to its folder.
    overrides
        Settings of the form ``train.epochs=3``. The value is parsed as YAML; a number in the key
        indexes a list (``classes.0.name=tumour``).

    Returns
    -------
    Recipe
        The validated recipe, with all defaults filled in.

    Raises
    ------
    ConfigError
        If the file cannot be read, a key is unknown or missing, or a value is invalid.

    Examples
    --------
    >>> load_recipe("recipe.yaml", ["train.epochs=3"]).train.epochs  # doctest: +SKIP
    3
    """
    path = Path(path)
    values = read_yaml(path)
    for override in overrides:
        apply_override(values, override)
    if isinstance(values.get("classes"), list):
        values["classes"] = {"table": values["classes"]}
    try:
        # Through JSON, because in strict mode pydantic accepts lists as tuples only from JSON.
        recipe = Recipe.model_validate_json(json.dumps(values))
        recipe.class_table  # noqa: B018 - checks names and colours
    except ValidationError as error:
        raise ConfigError(f"{path}{_set_note(overrides)}: {_problems(error)}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}{_set_note(overrides)}: classes: {error}") from error
    try:
        recipe.stages  # noqa: B018 - validates the recipe of each phase
    except ValidationError as error:
        raise ConfigError(f"{path}{_set_note(overrides)}: phases: {_problems(error)}") from error
    return _absolute(recipe, path.parent.resolve())


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write a recipe with all its defaults; `load_recipe` reads back an equal one.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomic(path, text)


def _problems(error: ValidationError) -> str:
    # Defaults that depend on an invalid value are not errors of their own.
    found = [one for one in error.errors() if one["type"] != "default_factory_not_called"]
    return "; ".join(_explain(one["loc"], one["type"], one["msg"]) for one in found[:5])


def _explain(loc: Sequence[int | str], kind: str, message: str) -> str:
    """Describe one problem by its key, and suggest the nearest valid key if it is unknown."""
    keys = ".".join(str(part) for part in loc if not _names_a_type(part)) or "recipe"
    if kind != "extra_forbidden":
        return f"{keys}: {message.removeprefix('Value error, ')}"
    valid = _keys_at(loc[:-1])
    near = difflib.get_close_matches(str(loc[-1]), valid, n=1, cutoff=0.5)
    hint = f"nearest valid key: {near[0]!r}" if near else f"valid keys: {', '.join(valid)}"
    return f"unknown key {keys!r}; {hint}"


def _names_a_type(part: int | str) -> bool:
    """Return whether pydantic added this part of a location to name a member of a union."""
    return isinstance(part, str) and (part.startswith("constrained-") or "[" in part)


def _keys_at(loc: Iterable[int | str]) -> list[str]:
    """Return the valid keys of the section at a location."""
    section: type[BaseModel] = Recipe
    for part in loc:
        # An integer indexes a list, whose entries all have the same section type.
        if not isinstance(part, int) and not _names_a_type(part):
            section = _section_in(section.model_fields[part].annotation) or section
    return [field.alias or name for name, field in section.model_fields.items()]


def _section_in(annotation: object) -> type[BaseModel] | None:
    """Return the section in a type such as ``X``, ``X | None`` or ``tuple[X, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, (_section_in(inner) for inner in get_args(annotation))), None)


def _set_note(overrides: Sequence[str]) -> str:
    return "".join(f" --set {override}" for override in overrides)


def _absolute(recipe: Recipe, folder: Path) -> Recipe:
    """Resolve the paths of a recipe against its folder."""
    stores = tuple(path if is_remote(path) else folder / path for path in recipe.data.stores)
    table = None if recipe.data.groups is None else folder / recipe.data.groups
    data = recipe.data.model_copy(update={"stores": stores, "groups": table})
    update: dict[str, object] = {"data": data}
    start = recipe.model.start
    if isinstance(start, Path):
        update["model"] = recipe.model.model_copy(update={"weights": str(folder / start)})
    return recipe.model_copy(update=update)
