"""Choosing the batch size, and whether compiling pays off."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wsi_seg.errors import ConfigError
from wsi_seg.predict.batch import batch_for, best_batch, fastest
from wsi_seg.predict.compiling import missing_compiler, require_compiler, should_compile
from wsi_seg.predict.device import Device


class Card:
    """Fake GPU predictor with a rate per batch size; the first pass of each loads kernels."""

    device = torch.device("cuda", 0)

    def __init__(self, rates):
        self.rates, self.passes = rates, []

    def warm_up(self, batch, tile_px):
        self.passes.append((batch, tile_px))
        loading = 5.0 if self.passes.count((batch, tile_px)) == 1 else 0.0
        return batch / self.rates[batch] + loading


def test_larger_tiles_have_smaller_batches():
    cuda = Device("cuda:1", "bf16", 2**30)
    assert batch_for(cuda, 512) == 64
    assert batch_for(cuda, 1024) == 16
    assert batch_for(cuda, 10_000) == batch_for(Device("cpu", "fp32", None), 4096) == 1


def test_the_first_pass_is_not_timed():
    card = Card({64: 1500.0, 32: 1580.0, 16: 1600.0})
    batch, rates = best_batch(card, 512, 64, tiles=10**6)
    assert batch == 16
    assert rates.keys() == {16, 64}
    assert rates == pytest.approx({size: card.rates[size] for size in rates})
    assert {tile_px for _, tile_px in card.passes} == {512}


def test_a_second_batch_size_is_measured_if_it_can_pay_off():
    rates = {64: 1500.0, 16: 1600.0}
    short, long = Card(rates), Card(rates)
    assert best_batch(short, 512, 64, tiles=10_000) == (64, pytest.approx({64: 1500}))
    assert {batch for batch, _ in short.passes} == {64}
    assert best_batch(long, 512, 64, tiles=10**6)[0] == 16


def test_a_given_batch_size_is_the_only_one_measured():
    card = Card({7: 100.0})
    assert best_batch(card, 256, 7, tiles=0) == (7, pytest.approx({7: 100}))


@pytest.mark.parametrize("largest", [1, 2, 3])
def test_a_small_largest_batch_is_used(largest):
    card = Card({1: 10.0, 2: 11.0, 3: 12.0})
    batch, rates = best_batch(card, 64, largest, tiles=10**6)
    assert batch == largest
    assert max(rates) == largest


def test_a_cpu_is_not_measured():
    card = Card({})
    card.device = torch.device("cpu")
    assert best_batch(card, 512, 4, tiles=10**6) == (4, {})


@given(st.dictionaries(st.integers(1, 256), st.floats(0.1, 1e5), min_size=1))
def test_the_largest_of_similarly_fast_batches_is_taken(rates):
    found, best = fastest(rates), max(rates.values())
    assert rates[found] >= 0.99 * best
    assert all(rate < 0.99 * best for size, rate in rates.items() if size > found)


@given(st.integers(1, 10**7), st.floats(1, 1e4))
def test_compiling_pays_off_for_many_tiles(tiles, rate):
    found = should_compile(tiles, rate)
    assert found <= should_compile(2 * tiles, rate)  # more tiles never make compiling worse
    assert found >= should_compile(tiles, 2 * rate)
    assert not should_compile(2209, 1500)  # a slide of 12,288 px on an H200
    assert should_compile(10**6, 1500)


@pytest.mark.parametrize(("device", "compiler"), [("cuda:0", "gcc"), ("cpu", "g++")])
def test_a_machine_without_a_compiler_says_which_one_it_lacks(
    tmp_path, monkeypatch, device, compiler
):
    for variable in ("CC", "CXX"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert f"({compiler})" in missing_compiler(device)
    with pytest.raises(ConfigError, match="install that, or give --compile off"):
        require_compiler(device)
    (tmp_path / compiler).touch(mode=0o755)
    assert "compiler" not in missing_compiler(device)


def test_a_machine_without_the_headers_of_python_says_so(tmp_path, monkeypatch):
    (tmp_path / "gcc").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert "python3-dev" in missing_compiler("cuda")
    (tmp_path / "Python.h").touch()
    assert missing_compiler("cuda") == ""
    require_compiler("cuda")
