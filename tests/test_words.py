"""Words that were retired stay out of names, comments, docstrings, messages, help and docs."""

import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Rooms whose prose is still to be changed; a room leaves this list when it is done.
TO_COME = (
    "wsi_seg/cli",
    "wsi_seg/config",
    "wsi_seg/data",
    "wsi_seg/infer",
    "wsi_seg/ingest",
    "wsi_seg/learn",
    "wsi_seg/models",
    "wsi_seg/predict",
    "wsi_seg/reading",
    "wsi_seg/sampling",
    "wsi_seg/slides",
    "wsi_seg/store",
    "tests/cli",
    "tests/data",
    "tests/hostile",
    "tests/infer",
    "tests/ingest",
    "tests/learn",
    "tests/models",
    "tests/pipelines",
    "tests/predict",
    "tests/reading",
    "tests/sampling",
    "tests/slides",
    "tests/store",
)

# Parts of names that are retired in the whole tree, and what is said instead.
NAMES = {
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
    "unjudged": "unscored",
}

# Names that are retired as a whole in the whole tree: their parts are also other words.
WHOLE_NAMES = {
    "apart_mm": "min_distance_mm",
    "energy_table": "energy_score_table",
    "judge_marks": "match_detections",
    "judge_members": "ablate_members",
    "judge_objects": "list_review_objects",
    "kept_apart": "nms_by_distance",
    "kept_clear": "nms_by_iou",
    "read_places": "read_findings",
    "read_spheres": "read_luna16",
    "write_marks": "write_candidates",
    "ScanMarks": "ScanDetections",
}

# Patterns of prose outside the rooms to come, and what is said instead.
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
SIZE = re.compile(r"(?:(?<!level-)\d|[})]|\bunit:?) px\b|px²|\b\w+/px\b")
PX = re.compile(r"(?<!\w)px(?!\w)")
CODE = re.compile(r"```.*?```|``.*?``|`[^`\n]*`|^ {4,}\S.*?$", re.DOTALL | re.MULTILINE)


def files(*suffixes):
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout.split("\0")  # fmt: skip
    kept = [ROOT / name for name in listed if name.endswith(suffixes)]
    return [path for path in kept if path.is_file() and path != Path(__file__)]


def is_to_come(path):
    return path.relative_to(ROOT).as_posix().startswith(tuple(f"{room}/" for room in TO_COME))


def parts(name):
    """Words of a name, split at underscores and capitals."""
    return [part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def tokens(path):
    return tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)


def prose_of_python(path):
    """Line and text of each comment and string, and whether pixels are spoken of in sentences."""
    before = tokenize.NEWLINE
    found = []
    for token in tokens(path):
        if token.type == tokenize.COMMENT:
            found.append((token.start[0], token.string, True))
        elif token.type in (tokenize.STRING, tokenize.FSTRING_MIDDLE):
            starts = before in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
            found.append((token.start[0], token.string, starts and '"""' in token.string))
        if token.type not in (tokenize.NL, tokenize.COMMENT):
            before = token.type
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
        if is_to_come(path):
            continue
        for line, text, pixels in prose_of_python(path):
            wrong += [f"{path.relative_to(ROOT)}:{line}: {w}" for w in retired(text, pixels=pixels)]
    assert not wrong, "\n".join(wrong)


def test_retired_words_are_gone_from_docs():
    wrong = []
    for path in files(".md", ".html", ".js"):
        if is_to_come(path) or path.name == "CHANGELOG.md":
            continue
        for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            pixels = path.suffix == ".md"
            wrong += [
                f"{path.relative_to(ROOT)}:{number}: {w}" for w in retired(text, pixels=pixels)
            ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("room", TO_COME)
def test_rooms_to_come_exist(room):
    assert (ROOT / room).is_dir()


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
