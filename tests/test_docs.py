"""What the README and the pages of docs/ show is true of the code: their blocks run."""

import ast
import inspect
import itertools
import re
import runpy
import shlex
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
import yaml
from typer.testing import CliRunner

import wsi_seg
from tests.makers.dicoms import write_dicom_image
from wsi_seg.annotations.rle import encode_rle
from wsi_seg.cli.app import app
from wsi_seg.testing.phantoms import phantom_xray
from wsi_seg.testing.tissue import write_tissue_slide

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))
}

# Blocks that are only read, and why; their pages say the same above them.
NOT_RUN = {
    ("README.md", "sets up an environment"),
    ("docs/index.md", "installs packages"),
    ("docs/howto/gpu-cluster.md", "needs GPUs or a cluster"),
    ("docs/howto/schedulers.md", "needs a cluster"),
    ("docs/howto/containers.md", "needs Docker"),
    ("docs/howto/object-stores.md", "needs an object store"),
    ("docs/howto/own-slides.md", "serves a page until it is stopped"),
}

# Recipes of pages are run with the smallest network, for one step.
SMALL = {
    "patch_px": 64,
    "model": {"encoder": "tu-mobilenetv3_small_050", "weights": None},
    "train": {"epochs": 1, "batch_size": 2, "workers": 0, "precision": "fp32"},
    "optimizer": {"lr": 0.03},  # two large steps: thousands of objects fewer to report on
}

FENCE = re.compile(
    r'^(?:<!-- not run: (?P<reason>.+?) -->\n)?'
    r'```(?P<kind>\w+)(?: title="(?P<title>.+?)")?\n(?P<text>.*?)^```$',
    re.DOTALL | re.MULTILINE,
)  # fmt: skip


@dataclass(frozen=True)
class Block:
    kind: str
    title: str | None
    text: str
    reason: str | None


def blocks(page):
    return [
        Block(hit["kind"], hit["title"], hit["text"], hit["reason"])
        for hit in FENCE.finditer(PAGES[page])
    ]


def commands(block):
    """Words after ``wsi-seg`` of each line of a block."""
    lines = [shlex.split(line, comments=True) for line in block.text.splitlines()]
    return [words[1:] for words in lines if words and words[0] == "wsi-seg"]


def names_used(text):
    return set(re.findall(r"\bwsi_seg\.(\w+)", text))


RUN = [page for page in PAGES if any(block.kind in ("sh", "python") for block in blocks(page))]
LINES = [
    (page, words) for page in RUN for block in blocks(page) if block.kind == "sh"
    for words in commands(block)
]  # fmt: skip
PYTHON = [(page, b.text) for page in RUN for b in blocks(page) if b.kind == "python"]


@pytest.fixture(scope="module")
def painted(tmp_path_factory):
    """Slides with glands and their polygons; each page gets a copy."""
    folder = tmp_path_factory.mktemp("painted")
    (folder / "slides").mkdir()
    (folder / "polygons").mkdir()
    for number, seed in ((1, 1), (2, 4)):  # both have glands
        path = folder / f"slides/slide-{number}.tif"
        truth = write_tissue_slide(path, height=1000, width=1300, seed=seed)
        truth.rename(folder / "polygons" / truth.name)
    return folder


@pytest.fixture
def inputs(tmp_path, monkeypatch, painted):
    """Slides with polygons, and X-rays with runs, in the folder that blocks run in."""

    def make(page):
        if page.endswith("x-rays.md"):
            write_xrays(tmp_path)
        else:
            copy_slides(painted, tmp_path, "glomerulus" if "kidney" in page else "gland")
        if page.endswith(("own-network.md", "gpu-cluster.md", "array-jobs.md")):
            run_line(["tile", "slides/", "--out", "store.zarr"])
        return tmp_path

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return make


def copy_slides(painted, folder, name):
    shutil.copytree(painted, folder, dirs_exist_ok=True)
    for path in (folder / "polygons").iterdir():
        path.write_text(path.read_text().replace('"gland"', f'"{name}"'))


def write_xrays(folder):
    (folder / "dicom").mkdir()
    rows = ["ImageId,EncodedPixels"]
    for number in range(8):
        finding = np.zeros((128, 128), dtype=bool)
        finding[30:60, 20 : 30 + 5 * number] = number % 2
        write_dicom_image(folder / f"dicom/x{number}.dcm", phantom_xray(finding, number))
        runs = encode_rle(finding, dialect="relative") if number % 2 else "-1"
        rows.append(f"x{number},{runs}")
    (folder / "train.csv").write_text("\n".join(rows) + "\n")


def write_file(block, folder):
    text = block.text
    if block.kind == "yaml":
        recipe = yaml.safe_load(text)
        sampling = recipe.get("sampling", {}) | {"patches_per_epoch": 4}
        text = yaml.safe_dump(recipe | SMALL | {"sampling": sampling})
    (folder / block.title).write_text(text)
    if block.title == "pyproject.toml":
        install(tomllib.loads(text)["project"], folder)


def install(project, folder):
    """Do what pip does for entry points."""
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Name: {project['name']}\nVersion: {project['version']}\n")
    groups = (
        [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
        for group, entries in project["entry-points"].items()
    )
    (info / "entry_points.txt").write_text("\n".join(itertools.chain(*groups)))


def run_line(words):
    globbed = [
        name for word in words
        for name in (sorted(map(str, Path().glob(word))) if "*" in word else [word])
    ]  # fmt: skip
    done = CliRunner().invoke(app, globbed)
    assert done.exit_code == 0, (words, done.output)


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_the_blocks_of_a_page_run_in_their_order(page, inputs):
    folder = inputs(page)
    for block in blocks(page):
        if block.reason or block.kind == "text" or (block.title or "").startswith("~"):
            continue
        if block.kind == "python" and not (block.title or "").endswith(".py"):
            (folder / "block.py").write_text(block.text)
            runpy.run_path("block.py")
        elif block.kind == "sh":
            for words in commands(block):
                run_line(words)
        else:
            write_file(block, folder)


@pytest.mark.parametrize(("page", "words"), LINES, ids=[" ".join(words) for _, words in LINES])
def test_every_command_line_shown_parses(page, words):
    verb, *rest = words
    group: Any = typer.main.get_command(app)
    command = group.commands[verb]
    if "VERB" not in words:
        command.make_context(verb, rest, resilient_parsing=False)


@pytest.mark.parametrize(("page", "text"), PYTHON, ids=[page for page, _ in PYTHON])
def test_every_block_of_python_parses(page, text):
    ast.parse(text)


@pytest.mark.parametrize(("page", "text"), PYTHON, ids=[page for page, _ in PYTHON])
def test_every_block_of_python_uses_public_names(page, text):
    assert names_used(text) <= set(wsi_seg.__all__)


def test_lines_and_blocks_were_found():
    assert len(LINES) >= 40
    assert len(PYTHON) >= 7


def test_blocks_that_are_not_run_are_known():
    marked = {(page, b.reason) for page in PAGES for b in blocks(page) if b.reason}
    assert marked == NOT_RUN
    # A mark that is not right above its block would be no mark.
    found = sum(block.reason is not None for page in PAGES for block in blocks(page))
    assert sum(text.count("<!-- not run") for text in PAGES.values()) == found


def test_the_four_tasks_of_a_newcomer_take_six_lines():
    tour = PAGES["docs/index.md"].split("## Four things from Python")[1]
    tasks = [hit["text"] for hit in FENCE.finditer(tour) if hit["kind"] == "python"]
    assert len(tasks) == 4
    for text in tasks:
        assert len([line for line in text.splitlines() if line.strip()]) <= 6, text


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", PAGES[page]):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), target


def test_every_page_is_in_the_navigation():
    def pages(entry):
        if isinstance(entry, str):
            return {entry}
        parts = entry.values() if isinstance(entry, dict) else entry
        return set().union(*map(pages, parts))

    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert pages(nav) == {page.removeprefix("docs/") for page in PAGES} - {"README.md"}


def test_the_readme_is_one_screen_and_a_half():
    assert len(PAGES["README.md"].splitlines()) <= 100


def test_the_layers_name_every_module():
    layers = PAGES["README.md"].split("## Layers")[1].split("## More")[0]
    modules = {path.stem for path in (ROOT / "wsi_seg").iterdir() if path.name[:1] not in "_."}
    assert modules <= set(re.findall(r"\w+", layers))


def test_every_folder_named_exists():
    for name in re.findall(r"`(\w+)/`", PAGES["README.md"].split("## More")[1]):
        assert (ROOT / name).is_dir(), name


def test_the_page_of_the_api_lists_every_name_with_its_sentence():
    listed = dict(re.findall(r"^- `(\w+)`: (.+)$", PAGES["docs/api.md"], re.MULTILINE))
    names = [name for name in wsi_seg.__all__ if name != "__version__"]
    first = {name: str(inspect.getdoc(getattr(wsi_seg, name))).split("\n\n")[0] for name in names}
    assert listed == {name: " ".join(text.split()) for name, text in first.items()}
