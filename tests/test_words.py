"""Words that were retired stay out of names, comments, docstrings, messages, help and docs."""

import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Tests that name the words.
LISTS = (Path(__file__), ROOT / "tests/cli/test_help.py")

# Parts of names that are retired in the whole tree, and what is said instead.
NAMES = {
    "anew": "again",
    "believed": "trusted",
    "catalogue": "catalog",
    "caveat": "warning",
    "caveats": "warnings",
    "desk": "slide cache",
    "judged": "review object, scored, matched",
    "labeller": "connected components",
    "likelier": "more probable",
    "likeliest": "argmax, most probable",
    "mended": "repaired",
    "parted": "split",
    "tally": "component stat",
    "told": "reported",
    "unjudged": "unscored",
}

# Names that are retired as a whole in the whole tree: their parts are also other words.
WHOLE_NAMES = {
    "apart_mm": "min_distance_mm",
    "begun_batches": "unfinished_batches",
    "begun_settings": "unfinished_settings",
    "begun_with": "read_settings",
    "calm_workers": "worker_environment",
    "crowds": "counts of boxes",
    "discard_label": "delete_label",
    "discard_others": "delete_others",
    "energy_table": "energy_score_table",
    "judge_marks": "match_detections",
    "judge_members": "ablate_members",
    "judge_objects": "list_review_objects",
    "kept_apart": "nms_by_distance",
    "kept_clear": "nms_by_iou",
    "note_attributes": "update_attributes",
    "note_names": "update_names",
    "predict_works": "predict_strip_jobs",
    "read_places": "read_findings",
    "read_spheres": "read_luna16",
    "ScanMarks": "ScanDetections",
    "StripOnItsWay": "PendingStrip",
    "take_up": "load_state",
    "windows_in": "tiles_in",
    "windows_skipped": "tiles_skipped",
    "windows_spared": "tiles_skipped_by_first_pass",
    "write_marks": "write_candidates",
}

# Patterns of prose, and what is said instead.
PROSE = {
    r"\banew\b": "again",
    r"\bbeside\b": "next to",
    r"\bby wish\b": "optional",
    r"(?<!there )\b(?:is|are|was|were) none\b": "not a",
    r"\blikeli(?:er|est)\b": "more, most probable",
    r"\b(?:lie|lies|lay)\b": "is",
    r"\bmend(?:ed|s)?\b": "repair",
    r"\bparted\b": "split",
    r"\btold\b": "reported",
    r"\bwhom\b": "who",
}

# "512 px" is a size; the noun is pixel. Of units, "um/px" and "px²" stay.
SIZE = re.compile(r"(?:(?<!level-)\d|[})]|\w,|\bunit:?) px\b|px²|\b\w+/px\b")
PX = re.compile(r"(?<!\w)px(?!\w)")
CODE = re.compile(r"```.*?```|``.*?``|`[^`\n]*`|^>>> .*?$|^ {4}\w+$", re.DOTALL | re.MULTILINE)
CODE_LINE = re.compile(r"^ {4,}\S.*$")


def files(*suffixes):
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    kept = [ROOT / name for name in listed if name.endswith(suffixes)]
    return [path for path in kept if path.is_file() and path not in LISTS]


def parts(name):
    """Words of a name, split at underscores and capitals."""
    return [part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def tokens(path):
    return tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)


def prose_of_python(path):
    """Line and text of each comment and string; only sentences have spaces."""
    before = None
    found = []
    for token in tokens(path):
        if token.type in (tokenize.COMMENT, tokenize.STRING):
            found.append((token.start[0], token.string))
        elif token.type == tokenize.FSTRING_MIDDLE:
            # A number may be what comes before: "{side} px".
            text = token.string if before != "}" else "}" + token.string
            found.append((token.start[0], text))
        before = token.string
    return found


def retired(text, *, pixels):
    """Retired words of a piece of prose."""
    plain = " ".join(CODE.sub(" ", text).split())
    found = [
        f"{hit[0]!r}: say {now!r}" for was, now in PROSE.items() for hit in re.finditer(was, plain)
    ]
    if pixels and PX.search(SIZE.sub(" ", plain)):
        found.append("'px': say 'pixel' or 'pixels'")
    return found


def test_retired_names_are_gone():
    wrong = []
    for path in files(".py"):
        for token in tokens(path):
            if token.type != tokenize.NAME:
                continue
            now = WHOLE_NAMES.get(token.string.lstrip("_"))
            now = now or next((NAMES[part] for part in parts(token.string) if part in NAMES), None)
            if now:
                place = f"{path.relative_to(ROOT)}:{token.start[0]}"
                wrong.append(f"{place}: {token.string}: say {now!r}")
    assert not wrong, "\n".join(wrong)


def test_retired_words_are_gone_from_comments_docstrings_and_messages():
    wrong = []
    for path in files(".py"):
        for line, text in prose_of_python(path):
            pixels = " " in text.strip()
            wrong += [f"{path.relative_to(ROOT)}:{line}: {w}" for w in retired(text, pixels=pixels)]
    assert not wrong, "\n".join(wrong)


def test_retired_words_are_gone_from_docs():
    wrong = []
    for path in files(".md", ".html", ".js"):
        if path.name == "CHANGELOG.md":
            continue
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            pixels = path.suffix == ".md"
            prose = CODE_LINE.sub("", text)
            wrong += [
                f"{path.relative_to(ROOT)}:{number}: {w}" for w in retired(prose, pixels=pixels)
            ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "count"),
    [("a store lies beside it", 2), ("512 px wide", 0), ("each px counts", 1), ("`px` is code", 0),
     ("there is none", 0), ("what is none", 1), ("in level-0 px", 1), ("", 0)],
)  # fmt: skip
def test_the_patterns_find_what_they_name(text, count):
    assert len(retired(text, pixels=True)) == count


def test_the_glossary_is_alphabetical_and_says_each_word_once():
    lines = (ROOT / "docs/glossary.md").read_text(encoding="utf-8").splitlines()
    words = [line.split("|")[1].strip().lower() for line in lines if line.startswith("| ")][1:]
    assert len(words) > 50
    assert words == sorted(set(words))
