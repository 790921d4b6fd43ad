"""What is never done anywhere: loading pickles, running text as code, asking a shell."""

import ast
import os
import sys
import types
from pathlib import Path
from typing import ClassVar

import dask
import pytest
import torch

from wsi_seg.errors import CheckpointError, ConfigError
from wsi_seg.inference import clusters
from wsi_seg.learn.resume import LAST, position_of
from wsi_seg.models import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    path
    for folder in ("wsi_seg", "pipelines", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
]
# Round trips of our own objects, in a test that users may run on their readers.
PICKLES_ITS_OWN = {
    ROOT / "wsi_seg/testing/conformance.py",
    ROOT / "wsi_seg/testing/store_conformance.py",
}

# Read only with --trust, or after the file was searched: `tests/models/test_foreign.py` tries both.
ON_TRUST = {
    ROOT / "wsi_seg/models/script_file.py": "torch.jit.load",
    ROOT / "wsi_seg/models/exported_file.py": "torch.export.load",
}

FORBIDDEN = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "dill.load", "dill.loads", "joblib.load",
    "marshal.load", "marshal.loads", "shelve.open", "cloudpickle.load", "cloudpickle.loads",
    "pandas.read_pickle", "pd.read_pickle", "yaml.unsafe_load", "yaml.full_load",
    "yaml.load_all", "os.system", "os.popen", "tempfile.mktemp", "eval", "exec", "compile",
    "torch.hub.load", "torch.jit.load", "torch.export.load", "onnx.load", "__import__",
}  # fmt: skip


def offences(source, *, pickles=False, trusted=None):
    """Calls in a module that could run what a file says."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in FORBIDDEN - {trusted} and not (pickles and name == "pickle.loads"):
            yield name
        if name == "torch.load" and given.get("weights_only") != "True":
            yield "torch.load without weights_only=True"
        if name in {"np.load", "numpy.load"} and given.get("allow_pickle", "False") != "False":
            yield "numpy.load with pickles"
        if name == "yaml.load" and ast.unparse(node.args[1]) != "_Loader":
            yield "yaml.load with another loader"
        if given.get("shell", "False") != "False":
            yield "a shell"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_can_make_us_run_code(path):
    source = path.read_text(encoding="utf-8")
    found = offences(source, pickles=path in PICKLES_ITS_OWN, trusted=ON_TRUST.get(path))
    assert not list(found)


@pytest.mark.parametrize(
    "source",
    [
        "pickle.load(f)", "torch.load(f)", "torch.load(f, weights_only=False)", "eval(x)",
        "np.load(f, allow_pickle=True)", "yaml.load(t, yaml.Loader)", "os.system(x)",
        "subprocess.run(x, shell=True)",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(source):
    assert list(offences(source))


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_is_not_run_as_weights_nor_as_a_state(tmp_path):
    for name in ("model.pth", "model.safetensors", LAST):
        torch.save({"position": Bomb(tmp_path / "ran")}, tmp_path / name)
    for name in ("model.pth", "model.safetensors"):
        with pytest.raises(CheckpointError, match="pickle"):
            load_checkpoint(tmp_path / name)
    with pytest.raises(CheckpointError, match="damaged"):
        position_of(tmp_path)
    assert not (tmp_path / "ran").exists()


class Cluster:
    """Notes how a cluster is started, and does not start it."""

    asked: ClassVar[list] = []
    scaled: ClassVar[list] = []

    def __init__(self, **options):
        self.options = options
        self.asked.append(options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def scale(self, jobs):
        self.scaled.append(jobs)

    def adapt(self, minimum_jobs, maximum_jobs):
        self.scaled.append((minimum_jobs, maximum_jobs))


def test_schedulers_and_their_pages_stay_on_this_machine(monkeypatch):
    Cluster.asked = []
    jobs = types.SimpleNamespace(SLURMCluster=Cluster)
    monkeypatch.setitem(sys.modules, "dask_jobqueue", jobs)
    monkeypatch.setattr(clusters, "LocalCluster", Cluster)
    monkeypatch.setattr(clusters, "Client", lambda workers, **_: workers)
    monkeypatch.setattr(clusters, "visible_gpus", lambda: ("0", "1", "2"))
    for word in ("local:2", "cuda", "slurm"):
        with clusters.connected(word):
            pass
    local, cuda, slurm = Cluster.asked
    for here in (local, cuda):
        assert here["host"] == "127.0.0.1"
        assert here["scheduler_kwargs"]["dashboard_address"] == "127.0.0.1:0"
    assert local["dashboard_address"] is cuda["dashboard_address"] is None
    assert cuda["n_workers"] == 3
    assert slurm["scheduler_options"]["dashboard_address"].startswith("127.0.0.1:")


def test_a_number_after_the_colon_is_what_the_cluster_gets(monkeypatch):
    Cluster.asked, Cluster.scaled = [], []
    jobs = types.SimpleNamespace(SLURMCluster=Cluster)
    monkeypatch.setitem(sys.modules, "dask_jobqueue", jobs)
    monkeypatch.setattr(clusters, "LocalCluster", Cluster)
    monkeypatch.setattr(clusters, "Client", lambda workers, **_: workers)
    monkeypatch.setattr(clusters, "visible_gpus", lambda: ("0", "1", "2"))
    for word in ("cuda:2", "slurm", "slurm:8", "slurm:2-16"):
        with clusters.connected(word):
            pass
    assert Cluster.asked[0]["n_workers"] == 2
    assert Cluster.scaled == [1, 8, (2, 16)]


def test_a_page_is_shown_to_others_where_dask_is_configured_so(monkeypatch):
    Cluster.asked = []
    monkeypatch.setattr(clusters, "LocalCluster", Cluster)
    monkeypatch.setattr(clusters, "Client", lambda workers, **_: workers)
    with dask.config.set({"wsi-seg.dashboard": ":8787"}), clusters.connected("local:1"):
        pass
    assert Cluster.asked[0]["scheduler_kwargs"]["dashboard_address"] == ":8787"


@pytest.mark.parametrize("word", ["slurm:3-2", "slurm:0-2", "slurm:a", "local:", "gpu:1"])
def test_numbers_that_make_no_sense_are_refused(monkeypatch, word):
    job = types.SimpleNamespace(SLURMCluster=Cluster)
    monkeypatch.setitem(sys.modules, "dask_jobqueue", job)
    with pytest.raises(ConfigError, match="got --cluster"), clusters.connected(word):
        pass


def test_a_scheduler_that_is_gone_is_one_sentence(monkeypatch):
    def nobody(address, **_):
        raise OSError("Timed out trying to connect")

    monkeypatch.setattr(clusters, "Client", nobody)
    with (
        pytest.raises(ConfigError, match="nothing answers there"),
        clusters.connected("tcp://127.0.0.1:9"),
    ):
        pass
