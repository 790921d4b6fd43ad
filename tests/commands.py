"""The command line as tests run it, in this process."""

import json
from typing import Any

from typer.testing import CliRunner, Result

from wsi_seg.cli.app import app


def run(*words: object) -> Result:
    """Run one command; words are turned into text."""
    return CliRunner().invoke(app, [str(word) for word in words])


def run_json(*words: object) -> Any:
    """Run one command that has to succeed, and parse what ``--json`` prints last."""
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])
