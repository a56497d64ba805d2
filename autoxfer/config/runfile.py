"""The run file as text: read strictly, overridden key by key, every value traced back to where it was written."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from autoxfer.errors import InputError, nearest

Key = str | int


class _Loader(yaml.SafeLoader):
    """YAML's safe loader with the plain scalars of YAML 1.2: 1e-4 is a number; yes, 010 and 2020-01-01 are text."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - as PyYAML declares it


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", list("-+.0123456789")),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


class RunFile:
    """Values as they were given, and for each where it stands: a line of the file, or an option."""

    def __init__(self, values: Any, name: str, lines: Mapping[tuple[Key, ...], int] | None = None) -> None:
        if values is None:
            raise InputError("a mapping with the key task", "nothing", name)
        if not isinstance(values, Mapping):
            raise InputError("a mapping with the key task", show(values), name)
        self.values: dict[str, Any] = copy.deepcopy(dict(values))
        self._name = name
        self._lines = dict(lines or {})
        self._options: dict[tuple[Key, ...], str] = {}

    def where(self, path: tuple[Key, ...]) -> str:
        """Say where the value at ``path`` was written."""
        dotted = ".".join(map(str, path))
        for length in range(len(path), 0, -1):
            if path[:length] in self._options:
                return self._options[path[:length]]
        for length in range(len(path), 0, -1):
            if path[:length] in self._lines:
                return f"{self._name}: {dotted} (line {self._lines[path[:length]]})"
        return f"{self._name}: {dotted}" if path else self._name

    def override(self, text: str) -> None:
        """Apply one ``key=value``; the key is dotted (``budget.trials``, ``sources.0.weights``), the value is YAML."""
        key, equals, value = text.partition("=")
        if not equals or not key.strip() or not all(key.strip().split(".")):
            raise InputError("key=value, such as budget.trials=5", repr(text), "-o")
        path = tuple(int(part) if part.isdecimal() else part for part in key.strip().split("."))
        self.put(path, parse(value, f"-o {key}")[0], f"-o {text}")

    def put(self, path: tuple[Key, ...], value: Any, option: str) -> None:
        """Set the value at ``path``; ``option`` is how the user said so."""
        place: Any = self.values
        for depth, key in enumerate(path):
            last = depth == len(path) - 1
            if isinstance(place, list):
                if not isinstance(key, int) or not (key < len(place) or (last and key == len(place))):
                    raise InputError(f"an index below {len(place)}, counted from 0", f"{key!r}", option)
                if last and key == len(place):
                    place.append(None)
            elif not isinstance(place, dict):
                raise InputError(f"a mapping at {'.'.join(map(str, path[:depth]))}", show(place), option)
            else:
                place.setdefault(key, None if last else {})
            if last:
                place[key] = value
            else:
                place[key] = _opened(place[key], path[:depth])
                place = place[key]
        self._options[path] = option


def _opened(value: Any, parent: tuple[Key, ...]) -> Any:
    """Make room for keys: nothing becomes a mapping; so does a source or a strategy that was given as a name."""
    if value is None:
        return {}
    if isinstance(value, str) and parent in (("sources",), ("strategies",)):
        return {"model": value} if parent == ("sources",) else {value: {}}
    return value


def find(
    config: str | Path | Mapping[str, Any] | None, data: str | None, sources: Sequence[str], targets: Sequence[str]
) -> tuple[RunFile, Path]:
    """Take a run file, a mapping, or what the quick flags say; and the folder where relative paths start."""
    flags = [name for name, value in (("--data", data), ("--source", sources), ("--target", targets)) if value]
    if config is not None and flags:
        raise InputError("a run file or --data, --source and --target", "both", flags[0])
    if isinstance(config, Mapping):
        return RunFile(config, "the configuration"), Path.cwd()
    if config is not None:
        if not isinstance(config, str | os.PathLike):
            raise InputError("a run file's path, or a mapping", f"{show(config)} ({type(config).__name__})", "config")
        return read(Path(config)), Path(config).parent
    if data is None:
        raise InputError("a run file, or --data and --source", f"only {flags[0]}" if flags else "neither", "autoxfer")
    file = RunFile({}, "the command line")
    file.put(("task", "data"), data, f"--data {data}")
    if targets:
        given = " ".join(f"--target {name}" for name in targets)
        file.put(("task", "target"), targets[0] if len(targets) == 1 else list(targets), given)
    file.values["sources"] = []
    for index, spec in enumerate(sources):
        value = parse(spec, "--source")[0] if spec.lstrip().startswith("{") else spec
        file.put(("sources", index), value, f"--source {spec}")
    return file, Path.cwd()


def read(path: Path) -> RunFile:
    """Read a run file. Raises InputError: missing, no text, no YAML, a key twice."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        beside = [item.name for item in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise InputError("a run file", f"no such file{nearest(path.name, beside)}", str(path)) from None
    except UnicodeDecodeError:
        raise InputError("a run file in YAML, as UTF-8 text", "bytes that are no text", str(path)) from None
    except OSError as error:
        raise InputError("a run file", error.strerror or str(error), str(path)) from None
    values, lines = parse(text, str(path))
    return RunFile(values, str(path), lines)


def parse(text: str, where: str) -> tuple[Any, dict[tuple[Key, ...], int]]:
    """Parse YAML strictly into plain values and the line of each key. Raises InputError."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[tuple[Key, ...], int] = {}
        if node is None:
            return None, lines
        _walk(node, (), lines, set(), where)
        return loader.construct_document(node), lines
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError("valid YAML", f"{problem}", at) from None
    except (RecursionError, ValueError) as error:
        raise InputError("valid YAML", f"what cannot be read ({error})", where) from None
    finally:
        if loader is not None:
            loader.dispose()


def _walk(
    node: yaml.Node, path: tuple[Key, ...], lines: dict[tuple[Key, ...], int], seen: set[int], where: str
) -> None:
    """Note the line of every key; refuse a key that stands twice in one mapping, and aliases, which can be endless."""
    if id(node) in seen:
        raise InputError("values written out", "a YAML alias (*name)", f"{where}: {'.'.join(map(str, path))}")
    seen.add(id(node))
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*path, index), lines, seen, where)
    elif isinstance(node, yaml.MappingNode):
        keys: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in keys:
                dotted = ".".join(map(str, (*path, name)))
                raise InputError("every key once", f"{name!r} on lines {keys[name]} and {line}", f"{where}: {dotted}")
            keys[name] = lines[(*path, name)] = line
            _walk(value, (*path, name), lines, seen, where)


def show(value: Any, width: int = 60) -> str:
    """Show a value as it might stand in a run file, shortened."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        text = "{" + ", ".join(f"{key}: {show(item)}" for key, item in list(value.items())[:9]) + "}"
    elif isinstance(value, list | tuple):
        text = "[" + ", ".join(show(item) for item in value[:9]) + "]"
    else:
        text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."
