"""Owns ``wsi-seg recipe``."""

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from wsi_seg.cli.console import JsonFlag, Terminal, run_verb

if TYPE_CHECKING:
    from wsi_seg.config.describe import RecipeKey

_COLUMNS = 80


def recipe(
    section: Annotated[
        str,
        typer.Argument(
            help="Show only keys below this one, such as train or sampling.mix.",
            show_default="all keys",
        ),
    ] = "",
    schema: Annotated[
        bool,
        typer.Option("--schema", help="Print a JSON schema for editors instead of text."),
    ] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the page docs/recipe.md instead of text.")
    ] = False,
    json_mode: JsonFlag = False,
) -> None:
    """Print every recipe key: type, default, unit, meaning.

    Editors with the YAML language server complete and validate a recipe whose first line is
    `# yaml-language-server: $schema=recipe.schema.json`.

    For example:

      wsi-seg recipe
      wsi-seg recipe sampling
      wsi-seg recipe --schema > recipe.schema.json
    """
    if schema and markdown:
        raise typer.BadParameter("choose one of --schema, --markdown")

    def body(terminal: Terminal) -> dict[str, object]:
        import json
        from dataclasses import asdict

        from wsi_seg.config.describe import recipe_keys, recipe_markdown, recipe_schema
        from wsi_seg.errors import ConfigError

        if schema:
            found = recipe_schema()
            terminal.say(json.dumps(found, indent=1))
            return {"schema": found}
        if markdown:
            text = recipe_markdown()
            terminal.say(text.rstrip("\n"))
            return {"markdown": text}
        keys = [row for row in recipe_keys() if _below(row.key, section)]
        if not keys:
            raise ConfigError(f"got {section!r}; expected a key of a recipe, such as train.epochs")
        terminal.say("\n".join(line for row in keys for line in _lines(row)))
        terminal.next_command("wsi-seg", "preview", "recipe.yaml")
        return {"keys": [asdict(row) for row in keys]}

    run_verb(body, json_mode)


def _below(key: str, section: str) -> bool:
    return not section or key == section or key.startswith((f"{section}.", f"{section}["))


def _lines(row: "RecipeKey") -> list[str]:
    """Format a key: its name; its type, default and unit; and its meaning."""
    facts = row.kind.replace("`", "")
    if row.default != "":
        facts += "; required" if row.default is None else f"; default {row.default}"
    if row.unit:
        facts += f"; unit: {row.unit}"
    return [
        row.key,
        *textwrap.wrap(f"({facts})", _COLUMNS, initial_indent=" " * 4, subsequent_indent=" " * 5),
        *textwrap.wrap(row.text, _COLUMNS, initial_indent=" " * 4, subsequent_indent=" " * 4),
    ]
