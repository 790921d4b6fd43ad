"""Every command line that pages, jobs and sentences of the package show names real options."""

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from wsi_seg.cli.app import app

ROOT = Path(__file__).parents[2]
SHOWN = [
    path
    for pattern in ("*.md", "Makefile", "Dockerfile", "docs/**/*.md", "pipelines/**/*.md",
                    "pipelines/**/*.yaml", "deploy/*", "wsi_seg/**/*.md", "wsi_seg/**/*.py")
    for path in sorted(ROOT.glob(pattern))
    if path.name != "CHANGELOG.md"  # tells of options that are gone
]  # fmt: skip

# Up to what ends a command in a shell, in a sentence or in a string.
LINE = re.compile(r"(?<![\w/.-])wsi-seg ((?:[a-z][a-z-]*)(?:\\\n|[^\n`|;>])*)")
APP = get_command(app)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")


def options_of(line):
    """Words of the verb and its options, or None where the first word is no verb."""
    command: Any = APP
    for word in line.split():
        inner = getattr(command, "commands", {})
        if word.strip("'\".,()") not in inner:
            break
        command = inner[word.strip("'\".,()")]
    if hasattr(command, "commands"):
        return None
    return {name for one in command.params for name in (*one.opts, *one.secondary_opts)}


def lines(path):
    text = path.read_text(encoding="utf-8")
    text = re.sub(r'"\n\s*f?"', "", text)  # a string of several lines
    return [found.group(1) for found in LINE.finditer(text)]


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_options_of_shown_commands_exist(path):
    for line in lines(path):
        known = options_of(line)
        if known is not None:
            strange = set(OPTION.findall(line)) - known - {"--help", "--version"}
            assert not strange, (line, strange)


def test_commands_and_their_options_are_found():
    assert options_of("no-such --split 1") is None
    assert "--watershed-depth" in options_of("export --split 1")
    assert "--truth" in options_of("ct froc x")
    found = [(path, line) for path in SHOWN for line in lines(path) if options_of(line)]
    assert len(found) > 150
    assert any(path.parent.name == "shipped" for path, _ in found)
