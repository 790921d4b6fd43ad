"""Owns parsing the YAML of recipes: a file, or one ``a.b=c`` override, to plain values."""

import re
from pathlib import Path

import yaml

from wsi_seg.errors import ConfigError

# A recipe fits on a page; a larger file is not a recipe.
_MAX_BYTES = 2**20


class _Loader(yaml.SafeLoader):
    """YAML loader without aliases or repeated keys; booleans and numbers follow YAML 1.2."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, "got an alias (*name); expected the value written out", mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        keys: set[object] = set()
        for key, _ in node.value:
            again = isinstance(key, yaml.ScalarNode) and key.value in keys
            keys.add(key.value if isinstance(key, yaml.ScalarNode) else None)
            if again:
                raise yaml.constructor.ConstructorError(
                    None, None, f"got key {key.value!r} twice; expected it once", key.start_mark
                )
        return super().construct_mapping(node, deep)


# Keep only the types that JSON has.
_Loader.yaml_constructors = dict(yaml.SafeLoader.yaml_constructors)
for _kind in ("binary", "set", "omap", "pairs", "timestamp"):
    _Loader.yaml_constructors.pop(f"tag:yaml.org,2002:{_kind}")

# YAML 1.1 reads "1e-3" as text, "no" as false, "012" as 10 and "1:20" as 80; recipes have no dates.
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if not tag.endswith((":bool", ":timestamp", ":int", ":float"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(0|[1-9][0-9_]*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"([-+]?(\.\d+|\d+\.\d*|\d+(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|Inf)|\.(nan|NaN))$"),
    list("-+.0123456789"),
)


# PyYAML's constructors also raise ValueError and LookupError, for example on an empty !!int.
_UNREADABLE = (yaml.YAMLError, RecursionError, ValueError, LookupError)


def read_yaml(path: Path) -> dict[str, object]:
    """Read the keys and values of a YAML file.

    Raises
    ------
    ConfigError
        If the file cannot be read, is not YAML or is not a mapping.
    """
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise ConfigError(f"{path} has {size} bytes; expected a recipe of one page")
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no recipe {path}; expected a YAML file") from error
    except IsADirectoryError as error:
        raise ConfigError(
            f"{path} is a folder; expected a recipe: a YAML file, which names collections of "
            f"slides as data: {{stores: [{path.name}]}}"
        ) from error
    except OSError as error:
        raise ConfigError(f"cannot read recipe {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text; expected a YAML file in UTF-8") from error
    except _UNREADABLE as error:
        raise ConfigError(f"{path} is not a recipe: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}; expected keys and values")
    return values


def apply_override(values: dict[str, object], override: str) -> None:
    """Set one ``a.b=c`` in the values, in place.

    Raises
    ------
    ConfigError
        If the override is malformed, or its key is not inside a section or list.
    """
    keys, equals, text = override.partition("=")
    if not equals or not keys:
        raise ConfigError(f"got --set {override!r}; expected KEY.KEY=VALUE, e.g. train.epochs=3")
    try:
        value = yaml.load(text, _Loader)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"--set {override}: cannot read the value: {reason}") from error
    *path, last = keys.split(".")
    place: object = values
    for key in path:
        place = _step(place, key, override)
    if isinstance(place, dict):
        place[last] = value
    elif isinstance(place, list) and last.isdecimal() and int(last) < len(place):
        place[int(last)] = value
    else:
        raise ConfigError(f"--set {override}: there is no key {last!r}")


def _step(place: object, key: str, override: str) -> object:
    if isinstance(place, dict):
        return place.setdefault(key, {})
    if isinstance(place, list) and key.isdecimal() and int(key) < len(place):
        return place[int(key)]
    raise ConfigError(f"--set {override}: {key!r} is not inside a section or list")
