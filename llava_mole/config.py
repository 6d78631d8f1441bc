"""YAML files into typed dataclasses: inheritance, dotted overrides, exact errors.

A config file may name others it builds on::

    base: [llava_1_5_7b.yaml]      # relative to this file; a base may have bases of its own
    train:
      learning_rate: 2.0e-5

Mappings merge key by key, anything else replaces what the base said; later files win, and
``train.learning_rate=1e-4`` given to :func:`load` as an override wins over all files. Every key
must be a field of the dataclass it lands in; an unknown key is an error that names the file, the
line and the nearest field.
"""

import copy
import dataclasses
import difflib
import functools
import os
import tempfile
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

Config = TypeVar("Config")
# In a message; experiments have more rows than anybody reads.
_MOST_NAMES = 40


class ConfigError(ValueError):
    """A config file or override that can't be used; the message names file, line, key, remedy."""


def load(cls: type[Config], path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads ``path`` and what it builds on into an instance of the dataclass ``cls``.

    Args:
        cls: a dataclass, nested as deep as wanted; fields without default are required.
        path: a YAML file.
        overrides: ``dotted.key=value``, the value written as YAML.

    Raises:
        ConfigError: missing or malformed file, unknown key, wrong type, missing field.
    """
    values, places = _read_with_bases(Path(path))
    _override(values, places, overrides)
    return _instantiate(cls, values, places, str(path))


def read_values(path: str | Path, within: str | Path | None = None) -> dict[str, Any]:
    """The plain values of ``path`` over those of the files it builds on.

    Args:
        path: a YAML file.
        within: only bases below this folder count; the others are left out.

    Raises:
        ConfigError: a missing or malformed file.
    """
    folder = None if within is None else Path(within).resolve()
    return _read_with_bases(Path(path), folder=folder)[0]


def from_layers(
    cls: type[Config], layers: Sequence[Mapping[str, Any]], overrides: Sequence[str], origin: str
) -> Config:
    """Plain values, the later ones over the earlier as a file's are over its base's, into ``cls``.

    Args:
        cls: as for `load`.
        layers: values as `read_values` gives them.
        overrides: over all layers; see `load`.
        origin: names the layers in errors.

    Raises:
        ConfigError: as for `load`.
    """
    values: dict = {}
    places: dict[str, str] = {}
    for layer in layers:
        _merge(values, copy.deepcopy(dict(layer)))
    _override(values, places, overrides)
    return _instantiate(cls, values, places, origin)


def from_dict(cls: type[Config], values: Mapping[str, Any], origin: str) -> Config:
    """Validates plain ``values`` into ``cls``; ``origin`` names them in errors."""
    return _instantiate(cls, values, {}, origin)


def dump(instance: Any, path: str | Path) -> None:
    """Writes a dataclass as YAML that :func:`load` reads back, replacing ``path`` in one step."""
    path = Path(path)
    values = _adapter(type(instance)).dump_python(instance, mode="json")
    descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".partial")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        yaml.safe_dump(values, file, sort_keys=False, allow_unicode=True)
    os.chmod(partial, 0o644)
    os.replace(partial, path)


def _override(values: dict, places: dict[str, str], overrides: Sequence[str]) -> None:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not all(part for part in key.split(".")):
            raise ConfigError(f"override {override!r}: write it as dotted.key=value")
        try:
            value = yaml.safe_load(text) if text else ""
        except yaml.YAMLError as error:
            raise ConfigError(f"override {override!r}: the value is not YAML: {error}") from None
        _merge(values, _nest(key.split("."), value))
        places[key] = f"override {override!r}"


def nearest(name: str, known: Collection[str]) -> str:
    """The remedy for an unknown name: ``did you mean 'lora_r'?``, or what there is."""
    names = list(known)
    if near := difflib.get_close_matches(name, names, n=1):
        return f"did you mean {near[0]!r}?"
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"there are {', '.join(names[:_MOST_NAMES]) or 'none'}{more}"


def _instantiate(cls, values, places, origin):
    for key, names in _unknown_keys(cls, values):
        remedy = nearest(key.split(".")[-1], names)
        raise ConfigError(f"{_place(key, places, origin)}: unknown key {key!r}; {remedy}")
    try:
        return _adapter(cls).validate_python(values)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"])
            plain = not isinstance(problem["input"], dict | list)
            shown = plain and problem["type"] != "missing"
            given = f" (given: {problem['input']!r})" if shown else ""
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{_place(key, places, origin)}: {key or 'config'}: {message}{given}")
        raise ConfigError("\n".join(lines)) from None


@functools.cache
def _adapter(cls: type) -> TypeAdapter:
    """Pydantic's reader of a class, whose making takes longer than all else here."""
    return TypeAdapter(cls)


def _read_with_bases(
    path: Path, within: tuple[Path, ...] = (), folder: Path | None = None
) -> tuple[dict, dict[str, str]]:
    """Values of ``path`` over those of its bases; ``within`` are the files that led here.

    Bases that are not below ``folder``, where one is given, are left out.
    """
    values, places = _read(path)
    bases = values.pop("base", None) or []
    within = (*within, path.resolve())
    merged: dict = {}
    merged_places: dict[str, str] = {}
    for name in [bases] if isinstance(bases, str) else bases:
        base = path.parent / name
        if base.resolve() in within:
            raise ConfigError(f"{places['base']}: {base} builds on this file; remove one 'base'")
        if folder is not None and folder not in base.resolve().parents:
            continue
        base_values, base_places = _read_with_bases(base, within, folder)
        _merge(merged, base_values)
        merged_places.update(base_places)
    _merge(merged, values)
    merged_places.update(places)
    return merged, merged_places


def _read(path: Path) -> tuple[dict, dict[str, str]]:
    """A file's values, and ``file:line`` for each of its dotted keys."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; give the path of a YAML config") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file; give the path of a YAML config") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values at the top")
    return values, dict(_lines(node, (), path))


def _lines(node: yaml.Node, prefix: tuple[str, ...], path: Path) -> Iterator[tuple[str, str]]:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key_node, value_node in node.value:
            key = (*prefix, str(key_node.value))
            line = f"{path}:{key_node.start_mark.line + 1}"
            if key in seen:
                raise ConfigError(f"{line}: key {'.'.join(key)!r} is given twice")
            seen.add(key)
            yield ".".join(key), line
            yield from _lines(value_node, key, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(item, (*prefix, str(index)), path)


def _place(key: str, places: Mapping[str, str], origin: str) -> str:
    """Where ``key`` or the nearest part above it was written."""
    parts = key.split(".")
    while parts:
        if ".".join(parts) in places:
            return places[".".join(parts)]
        parts.pop()
    return origin


def _nest(parts: Sequence[str], value: Any) -> dict:
    for part in reversed(parts):
        value = {part: value}
    return value


def _merge(into: dict, values: Mapping) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _unknown_keys(annotation: Any, value: Any, prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """Dotted keys of ``value`` that no dataclass field takes, with the names it could have been."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            if dataclasses.is_dataclass(option) or typing.get_origin(option) in (dict, list, tuple):
                yield from _unknown_keys(option, value, prefix)
    elif dataclasses.is_dataclass(annotation) and isinstance(value, Mapping):
        hints = typing.get_type_hints(annotation)
        names = [field.name for field in dataclasses.fields(annotation) if field.init]
        for key, item in value.items():
            if key not in names:
                yield f"{prefix}{key}", names
            else:
                yield from _unknown_keys(hints[key], item, f"{prefix}{key}.")
    elif origin is dict and isinstance(value, Mapping):
        for key, item in value.items():
            yield from _unknown_keys(arguments[1], item, f"{prefix}{key}.")
    elif origin in (list, tuple) and isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _unknown_keys(arguments[0], item, f"{prefix}{index}.")
