"""Help of every verb at 80 columns, as a terminal shows it."""

import os
import re
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.main import get_command

from wsi_seg.cli.app import app


def commands(command, words=()):
    """All verbs and groups below a command, by the words that call them."""
    found = {words: command}
    for name, inner in getattr(command, "commands", {}).items():
        found |= commands(inner, (*words, name))
    return found


ALL = commands(get_command(app))
VERBS = {words: verb for words, verb in ALL.items() if not hasattr(verb, "commands")}
GROUPS = ("Data", "Train", "Predict", "Evaluate", "View", "Tools")


@pytest.fixture(autouse=True)
def terminal_of_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def context(words):
    name = " ".join(("wsi-seg", *words))
    return typer.Context(ALL[words], info_name=name, help_option_names=["-h", "--help"])


def shown(words):
    return ALL[words].get_help(context(words))


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_no_line_is_cut(words):
    text = shown(words)
    for line in text.splitlines():
        assert len(line) <= 80, line
        assert not line.endswith(("...", "…")) or line.startswith("Usage:"), line
        assert not line.endswith("-"), f"an option or a word is cut: {line}"
    # What was written stands there whole, whatever the line breaks.
    compact = "".join(text.split())
    for parameter in ALL[words].params:
        assert "".join((parameter.help or "").split()) in compact
        assert all(option in text.split() for option in parameter.opts if option[0] == "-")
        for choice in re.findall(r"<([^>]*\|[^>]*)>", parameter.display_type(None)):
            assert f"<{choice}>" in text


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_option_says_what_it_is_and_its_default(words):
    assert "json_mode" in {parameter.name for parameter in VERBS[words].params}
    for parameter in VERBS[words].params:
        assert parameter.help, parameter.name
        assert parameter.help[0].isupper() or parameter.help.split()[0] in {"auto", "csv"}
        assert parameter.help.endswith("."), parameter.help
        _, text = parameter.get_help_record(context(words))
        flag = getattr(parameter, "is_flag", False) and not parameter.secondary_opts
        assert flag or re.search("default: |required", text), parameter.name


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_the_lines_of_examples_are_kept_and_parse(words):
    text = shown(words)
    examples = re.findall(r"^    wsi-seg (.+)$", text, re.MULTILINE)
    assert examples, "expected an example"
    for example in (line.partition(" > ")[0] for line in examples):
        called, *rest = example.split()
        command: Any = ALL[(called,)]
        if hasattr(command, "commands"):
            command = command.commands[rest.pop(0)]
        command.make_context(called, rest)


def test_verbs_are_listed_in_groups_in_one_sentence_each():
    text = shown(())
    headings = [line[:-1] for line in text.splitlines() if re.match(r"\w+:$", line)]
    assert headings == ["Options", *GROUPS]
    for words, command in ALL.items():
        if len(words) == 1:
            first = " ".join(command.help.split("\n\n")[0].split())
            assert re.search(rf"^  {words[0]} +{re.escape(first)}$", text, re.MULTILINE), first


@pytest.mark.parametrize(
    "word", ["px", "told", "anew", "beside", "mended", "whom", "is none", "are none", "likelier"]
)
def test_help_is_in_plain_words(word):
    allowed = {"--unit <um2|px>", "um2|px", "pixels with --unit px"}
    for words in ALL:
        text = " ".join(shown(words).split())
        for phrase in allowed:
            text = text.replace(phrase, "")
        assert not re.search(rf"\b{word}\b", text), (words, word)


def test_a_terminal_shows_the_same():
    words = [sys.executable, "-m", "wsi_seg", "infer", "--help"]
    env = os.environ | {"COLUMNS": "80"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.rstrip() == shown(("infer",)).rstrip()
