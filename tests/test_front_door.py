"""Every public name says what it takes and gives, and shows it."""

import dataclasses
import doctest
import inspect
import re
import sys

import pytest

import wsi_seg
from wsi_seg.batch import SlidesReport

PUBLIC = {name: getattr(wsi_seg, name) for name in wsi_seg.__all__ if name != "__version__"}
FUNCTIONS = {name: one for name, one in PUBLIC.items() if inspect.isfunction(one)}
CLASSES = {name: one for name, one in PUBLIC.items() if inspect.isclass(one)}

# What is only read: nobody makes or calls it.
OUTCOMES = {name for name in CLASSES if name.endswith("Report") or name in {"RunPlan", "Scores"}}


def sections(documented):
    return set(re.findall(r"^(\w+)\n-+$", inspect.getdoc(documented) or "", re.MULTILINE))


def unnamed(names, text):
    return [name for name in names if not re.search(rf"\b{name}\b", text or "")]


def parameters(function):
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


def methods(kind):
    for name, value in vars(kind).items():
        found = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        found = found.fget if isinstance(found, property) else found
        if not name.startswith("_") and inspect.isfunction(found):
            yield name, found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_all_its_sections(name):
    function = FUNCTIONS[name]
    gives = inspect.signature(function).return_annotation not in (None, "None")
    expected = {"Parameters", "Examples"}
    missing = expected - sections(function)
    if gives and not sections(function) & {"Returns", "Yields"}:
        missing.add("Returns")
    assert not missing
    assert unnamed(parameters(function), inspect.getdoc(function)) == []


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_names_its_fields_and_the_parameters_of_its_methods(name):
    kind = CLASSES[name]
    if dataclasses.is_dataclass(kind):
        documented = (inspect.getdoc(kind) or "") + (
            (SlidesReport.__doc__ or "") if issubclass(kind, SlidesReport) else ""
        )
        assert unnamed([one.name for one in dataclasses.fields(kind)], documented) == []
    for method, function in methods(kind):
        assert function.__doc__, method
        refers = "see `" in function.__doc__.lower()
        assert refers or unnamed(parameters(function), function.__doc__) == [], method


@pytest.mark.parametrize("name", sorted(set(CLASSES) - OUTCOMES))
def test_a_class_shows_an_example(name):
    assert issubclass(CLASSES[name], Exception) or "Examples" in sections(CLASSES[name])


def test_the_examples_are_true():
    """Those that need no files; the pages of docs/ show the others."""
    ran = 0
    for module in sorted({one.__module__ for one in PUBLIC.values()}):
        found = doctest.testmod(sys.modules[module])
        assert found.failed == 0, module
        ran += found.attempted
    assert ran >= 30
