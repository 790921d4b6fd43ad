"""Owns the coded concepts of classes in DICOM: from a file, or looked up by name in SNOMED CT."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from wsi_seg.classes import ClassTable
from wsi_seg.errors import ConfigError

if TYPE_CHECKING:
    from pydicom.sr.coding import Code

# SNOMED CT keywords of morphologically abnormal structures; others are anatomical.
_ABNORMAL = frozenset({"Necrosis", "Neoplasm", "NeoplasmPrimary", "Tumor"})

_EXPECTED = (
    "expected, for each class, `type: [value, scheme, meaning]` and, if it is not an anatomical "
    "structure, `category:` in the same form"
)


@dataclass(frozen=True, slots=True)
class ClassCodes:
    """Coded property category and property type of a segment."""

    category: "Code"
    type: "Code"


def class_codes(classes: ClassTable, file: Path | None) -> dict[int, ClassCodes]:
    """Find the coded concepts of classes.

    Parameters
    ----------
    classes
        The classes; case and spaces in their names do not matter.
    file
        YAML file with concepts by class name. Other classes are looked up by name among the
        SNOMED CT concepts that DICOM lists, such as ``nucleus`` or ``blood vessel``.

    Returns
    -------
    dict[int, ClassCodes]
        Concepts by class id.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a class has no concept.
    """
    given = {} if file is None else _read(file)
    return {
        entry.id: given[entry.name] if entry.name in given else _look_up(entry.name)
        for entry in classes
    }


def _read(file: Path) -> dict[str, ClassCodes]:
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{file}: got {type(document).__name__}; {_EXPECTED}")
    return {str(name): _parse(file, str(name), row) for name, row in document.items()}


def _parse(file: Path, name: str, row: object) -> ClassCodes:
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    if not isinstance(row, dict) or "type" not in row or row.keys() - {"type", "category"}:
        raise ConfigError(f"{file}: class {name!r}: got {row!r}; {_EXPECTED}")
    found = {"category": codes.SCT.AnatomicalStructure}
    for key, triple in row.items():
        if not isinstance(triple, list) or len(triple) != 3:
            raise ConfigError(f"{file}: class {name!r}: got {key}: {triple!r}; {_EXPECTED}")
        found[str(key)] = Code(*map(str, triple))
    return ClassCodes(found["category"], found["type"])


def _look_up(name: str) -> ClassCodes:
    from pydicom.sr.codedict import codes

    keyword = "".join(word.capitalize() for word in re.findall(r"[A-Za-z]+", name))
    try:
        found = getattr(codes.SCT, keyword)
    except AttributeError as error:
        raise ConfigError(
            f"class {name!r} is not a concept that DICOM lists; pass a file with its code as "
            f"--codes: {_EXPECTED}"
        ) from error
    abnormal = keyword in _ABNORMAL
    sct = codes.SCT
    category = sct.MorphologicallyAbnormalStructure if abnormal else sct.AnatomicalStructure
    return ClassCodes(category, found)
