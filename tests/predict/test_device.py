"""Choosing device and precision, and what is refused."""

import pickle
import time

import pytest
import torch

import wsi_seg.predict.device as device_module
from wsi_seg.cores import memory_limit
from wsi_seg.errors import ConfigError
from wsi_seg.predict.device import Device, DeviceTimer, dtype_of, pick_device, pick_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize("name", ["gpu", "meta", "cpu:x"])
def test_devices_that_do_not_exist_are_refused(name):
    with pytest.raises(ConfigError, match=f"got device '{name}'; expected auto, cpu or cuda"):
        pick_device(name)


def test_cuda_is_refused_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == CPU
    with pytest.raises(ConfigError, match="this machine has no usable CUDA device"):
        pick_device("cuda:1")


@pytest.mark.parametrize(("native", "expected"), [(True, "bf16"), (False, "fp16")])
def test_a_card_without_native_bf16_computes_in_fp16(monkeypatch, native, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert pick_precision("auto", CUDA) == expected


def test_a_cpu_never_computes_in_fp16():
    assert pick_precision("auto", CPU) in ("fp32", "bf16")
    with pytest.raises(ConfigError, match="fp16 on a CPU, where it is slower than fp32; use"):
        pick_precision("fp16", CPU)


def test_a_cpu_without_onednn_computes_in_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert pick_precision("auto", CPU) == "fp32"


def test_an_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match="got precision 'int8'; expected auto, fp32, bf16, fp16"):
        pick_precision("int8", CPU)


def test_precisions_have_types():
    assert dtype_of("fp32") == torch.float32
    assert dtype_of("bf16").itemsize == dtype_of("fp16").itemsize == 2


def test_a_device_is_plain_data():
    device = Device.here("cpu", "fp32")
    assert device == Device("cpu", "fp32", None, memory_limit())
    assert pickle.loads(pickle.dumps(device)) == device


def test_a_timer_sums_its_intervals(monkeypatch):
    clock = iter([1.0, 3.0, 10.0, 10.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    timer = DeviceTimer(CPU)
    for _ in range(2):
        with timer:
            pass
    assert timer.seconds == 2.5


class FakeEvent:
    """Fake CUDA event with a clock that the test sets."""

    now = 0.0

    def record(self):
        self.at = FakeEvent.now

    def query(self):
        return self.at + 1 <= FakeEvent.now

    def elapsed_time(self, end):
        return 1000 * (end.at - self.at)


def test_timing_on_cuda_does_not_synchronise(monkeypatch):
    monkeypatch.setattr(device_module, "_event", FakeEvent)
    timer = DeviceTimer(CUDA)
    for _ in range(1000):
        with timer:
            FakeEvent.now += 0.25
    assert timer.seconds == 0.25 * 996  # the last second is still running
    FakeEvent.now += 1
    assert timer.seconds == 250
