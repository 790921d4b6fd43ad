"""Owns the reference of recipe keys, made from the models: rows for people, a schema for editors.

What a key means is the string below it in its section; type, default and unit are read from the
JSON schema that pydantic makes of the same fields, so the reference cannot fall behind the code.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from wsi_seg.config.recipe import Recipe

__all__ = ["RecipeKey", "recipe_keys", "recipe_markdown", "recipe_schema"]

Schema = Mapping[str, Any]  # JSON

_PLAIN = {"string": "text", "integer": "whole number", "boolean": "true or false", "null": "null"}
_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}

_HEAD = """# Recipe keys

Made by `wsi-seg recipe --markdown`. A recipe is one YAML file; `classes`, `data` and `mpp` are
required. `a[].b` is the key `b` of each entry of the list `a`. A section that is named replaces its
default. Editors complete and check recipes by the JSON schema of `wsi-seg recipe --schema`.
"""


@dataclass(frozen=True, slots=True)
class RecipeKey:
    """One key of a recipe.

    Parameters
    ----------
    key
        Its path, such as ``train.epochs``; ``[]`` stands for each entry of a list.
    kind
        Type in words, with its bounds.
    default
        Value where the recipe does not say, as YAML; None if it must say.
    unit
        Unit of its numbers; empty where they have no unit.
    text
        What it means.
    """

    key: str
    kind: str
    default: str | None
    unit: str
    text: str


def recipe_schema() -> dict[str, Any]:
    """JSON schema of a recipe, for editors.

    Examples
    --------
    >>> recipe_schema()["properties"]["patch_px"]["default"]
    256
    """
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | Recipe.model_json_schema()


def recipe_keys() -> list[RecipeKey]:
    """All keys of a recipe, in the order of the models.

    Examples
    --------
    >>> next(row for row in recipe_keys() if row.key == "data.label").default
    'annotations'
    """
    schema = recipe_schema()
    return list(_rows("", schema, schema["$defs"], ()))


def recipe_markdown() -> str:
    """Page of all keys, a table for each section."""
    sections: dict[str, list[RecipeKey]] = {}
    for row in recipe_keys():
        section = row.key.replace("[", ".").split(".")[0]
        sections.setdefault(section, []).append(row)
    alone = [rows[0] for rows in sections.values() if len(rows) == 1]
    text = _HEAD + _table(alone)
    for section, rows in sections.items():
        if len(rows) > 1:
            text += f"\n## {section}\n" + _table(rows)
    return text


def _table(rows: list[RecipeKey]) -> str:
    lines = ["", "| key | type | default | unit | meaning |", "|---|---|---|---|---|"]
    for row in rows:
        default = "required" if row.default is None else f"`{row.default}`" * bool(row.default)
        cells = (f"`{row.key}`", row.kind, default, row.unit, row.text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _rows(
    prefix: str, section: Schema, known: Schema, around: tuple[str, ...]
) -> Iterator[RecipeKey]:
    """Keys of a section and of those in it; one that holds itself is not entered again."""
    for name, field in section["properties"].items():
        key = f"{prefix}{name}"
        inner = list(_sections(field, known))
        about = inner[0][2]["description"] if inner else ""
        text = f"{field.get('description', about)} {about.partition('\n\n')[2]}"
        yield RecipeKey(
            key=key,
            kind=_kind(field, known),
            default=None if name in section.get("required", ()) else _default(field, inner),
            unit=field.get("unit", ""),
            text=" ".join(text.replace("``", "`").split()),
        )
        for title, entry, found in inner:
            if title not in around:
                yield from _rows(f"{key}{entry}.", found, known, (*around, title))


def _sections(field: Schema, known: Schema, entry: str = "") -> Iterator[tuple[str, str, Schema]]:
    """Sections that a field may hold: title, ``[]`` if in a list, and schema."""
    field = _resolved(field, known)
    if "properties" in field:
        yield field["title"], entry, field
    for inner in field.get("anyOf", ()):
        yield from _sections(inner, known, entry)
    if "items" in field:
        yield from _sections(field["items"], known, "[]")


def _resolved(field: Schema, known: Schema) -> Schema:
    found: Schema = known[field["$ref"].rpartition("/")[2]] if "$ref" in field else field
    return found


def _default(field: Schema, inner: list[tuple[str, str, Schema]]) -> str:
    """Default as YAML; of a section, what differs from the defaults of its own keys."""
    value = field.get("default")
    if isinstance(value, dict) and inner:
        own = inner[0][2]["properties"]
        value = {name: one for name, one in value.items() if one != own[name].get("default", one)}
    if "default" not in field or value == {}:
        return ""
    return value if isinstance(value, str) else json.dumps(value).replace('"', "")


def _kind(field: Schema, known: Schema) -> str:
    """Type of a field in words."""
    field = _resolved(field, known)
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_kind(inner, known) for inner in field["anyOf"]))
    if "const" in field or "enum" in field:
        return " or ".join(f"`{word}`" for word in field.get("enum", [field.get("const")]))
    kind = field.get("type")
    if kind == "array":
        if "prefixItems" in field:
            return f"[{', '.join(_kind(item, known) for item in field['prefixItems'])}]"
        return f"[{_kind(field['items'], known)}, ...]"
    if kind == "object":
        values = field.get("additionalProperties")
        return f"names, each with {_kind(values, known)}" if isinstance(values, dict) else "section"
    if field.get("format") == "path":
        return "path"
    return f"{_PLAIN.get(str(kind), str(kind or 'any value'))} {_bounds(field)}".strip()


def _bounds(field: Schema) -> str:
    if "minimum" in field and "maximum" in field:
        return f"{field['minimum']} to {field['maximum']}"
    return " and ".join(f"{sign} {field[name]}" for name, sign in _BOUNDS.items() if name in field)
