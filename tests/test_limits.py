import pytest

from wsi_seg import limits as limits_module
from wsi_seg.errors import ConfigError
from wsi_seg.limits import Limits, advice, limits


def test_defaults_hold_until_a_variable_raises_one(monkeypatch):
    assert limits() == Limits()
    monkeypatch.setenv("WSI_SEG_MAX_VERTICES", "12345678")
    assert limits() == Limits(vertices=12_345_678)
    assert "at most 12,345,678; if you trust the file, set WSI_SEG_MAX_VERTICES higher" in advice(
        "vertices"
    )


@pytest.mark.parametrize("text", ["0", "-1", "many", "1e9", ""])
def test_a_value_that_is_not_a_number_is_refused(monkeypatch, text):
    monkeypatch.setenv("WSI_SEG_MAX_IFDS", text)
    with pytest.raises(ConfigError, match="WSI_SEG_MAX_IFDS"):
        limits()


def test_a_variable_that_names_no_limit_is_refused(monkeypatch):
    limits_module._parse.cache_clear()  # as in a new process
    monkeypatch.setenv("WSI_SEG_MAX_VERTEX", "5")
    with pytest.raises(ConfigError, match="WSI_SEG_MAX_VERTICES"):
        limits()
