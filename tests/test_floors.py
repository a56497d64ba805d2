"""Imports point down and never in a circle, and each heavy library has one module."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import autoxfer

ROOT = Path(__file__).resolve().parents[1]

FLOORS = (
    "errors records report events metering matching mapped arrayfiles",
    "tracing opening heads conventions cutting preprocessing limits tokens activations layout layering lifting "
    "streaming pictures gallery keeping",
    "strategy taps source dataset hashing seen hooks metrics statistics axes linear convex boosting architectures "
    "textnets mixednets augmentation multilabel logistic stratifying",
    "guard calibration prospects diagnostics grouping chronology classwise pool splitting partitioning cells encoding "
    "preparation building inputfile winnerfiles",
    "plugins config runfolder scoring composed features traindata labelling optimising losses checkpoints training "
    "prediction",
    "tuning tracking export engines trials",
    "datacheck earlier rehearsal registered studies assessment looks rivals searching material setting provenance "
    "finalists folding judging refitting result closing explaining forecasting selection planning pretraining curve "
    "testing",
    "terminal cli __main__",
)
FLOOR = {name: height for height, names in enumerate(FLOORS) for name in names.split()}
OWNERS = {  # what is imported -> the only modules that may
    "mlflow": {"tracking"},
    "pydantic": {"config"},
    "optuna": {"tuning"},  # distributions excepted: a space is plain data
    "importlib.metadata.entry_points": {"plugins"},
    "importlib.metadata.EntryPoint": {"plugins"},
    "pluggy": {"hooks", "plugins"},
    "typer": {"cli"},
    "autoxfer_builtins": set(),
}
PLAIN_DATA = "optuna.distributions"


@dataclass(frozen=True)
class Import:
    """One imported name, and the module that imports it."""

    importer: str  # "selection", "tuning.journal"
    target: str  # "autoxfer.guard.decide", "mlflow"
    for_types: bool  # under `if TYPE_CHECKING`

    @property
    def module(self) -> str:
        """The module, or the package with all that is in it, whose floor counts."""
        return self.importer.partition(".")[0]

    @property
    def neighbour(self) -> str | None:
        """The module of this package that is imported; "" = the package's front; None = another package."""
        parts = self.target.split(".")
        if parts[0] != "autoxfer":
            return None
        return parts[1] if len(parts) > 1 and parts[1] != "__version__" else ""


def modules(folder: Path) -> dict[str, Path]:
    """Every module of a package but its front: "tuning.journal" -> path."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = path
    found.pop("", None)
    return found


def imports(name: str, path: Path) -> Iterator[Import]:
    """Every import of one file, those inside functions too."""
    tree = ast.parse(path.read_text())
    typed = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(part for part in ("autoxfer" if node.level else "", node.module or "") if part)
            targets = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for target in targets:
            yield Import(name, target, id(node) in typed)


def violations(folder: Path) -> list[str]:
    """Say what breaks the rules in a package's folder."""
    files = modules(folder)
    found = [entry for name, path in files.items() for entry in imports(name, path)]
    tops = dict.fromkeys(name.partition(".")[0] for name in files)
    faults = [f"{name} stands on no floor: add it to FLOORS" for name in tops if name not in FLOOR]
    faults += [
        f"{entry.importer} imports {entry.target}, which stands above it"
        for entry in found
        if entry.neighbour and FLOOR.get(entry.neighbour, 99) > FLOOR.get(entry.module, 99)
    ]
    faults += [f"{e.importer} imports {e.target} through the front door" for e in found if _hides_a_module(e)]
    faults += [f"{e.importer} imports {e.target}, which is {sorted(o)}'s" for e in found for o in _owners(e)]
    return faults + _circle(found, files)


def _hides_a_module(entry: Import) -> bool:
    """Whether a name comes lazily from ``autoxfer`` itself, which would hide the floor that it stands on."""
    return entry.target.partition(".")[2] in autoxfer.__all__ and entry.neighbour not in ("", None)


def _owners(entry: Import) -> Iterator[set[str]]:
    if (entry.target + ".").startswith(PLAIN_DATA + "."):
        return
    for library, owners in OWNERS.items():
        if (entry.target + ".").startswith(library + ".") and entry.module not in owners:
            yield owners


def _circle(found: list[Import], files: Mapping[str, Path]) -> list[str]:
    graph: dict[str, set[str]] = {}
    for entry in found:
        parts = entry.target.split(".")[1:]
        near = [".".join(parts[:n]) for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in files]
        if entry.neighbour and near and not entry.for_types:
            graph.setdefault(entry.importer, set()).add(near[0])
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [f"circle: {' -> '.join(error.args[1])}"]
    return []


def test_imports_point_down_and_each_heavy_library_has_one_module() -> None:
    assert violations(ROOT / "autoxfer") == []


def test_the_map_in_contributing_names_modules_that_are_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("|") and "`" in line][1:]
    named = {name.rstrip("/") for row in rows for name in re.findall(r"`([a-z/]+)`", row)}
    assert len(named) > 50
    assert named - set(FLOOR) == set()


def test_a_built_in_knows_nothing_of_the_machinery_that_runs_it() -> None:
    found = [e for name, path in modules(ROOT / "plugins" / "autoxfer_builtins").items() for e in imports(name, path)]
    contract = FLOOR["building"]
    above = [e for e in found if e.neighbour and e.neighbour not in autoxfer.__all__ and FLOOR[e.neighbour] > contract]
    studies = [entry for entry in found if entry.target.startswith("optuna") and PLAIN_DATA not in entry.target]
    assert [f"{entry.module}: {entry.target}" for entry in above + studies] == []


FAULTS: Mapping[str, tuple[dict[str, str], str]] = {
    "upwards": (
        {"guard": "from autoxfer.training import fit", "training": ""},
        "guard imports autoxfer.training.fit, which stands above it",
    ),
    "upwards_for_types": (
        {"guard": "if TYPE_CHECKING:\n    from autoxfer.training import Loop", "training": ""},
        "guard imports autoxfer.training.Loop, which stands above it",
    ),
    "upwards_and_lazily": (
        {"guard": "def f():\n    import autoxfer.selection", "selection": ""},
        "guard imports autoxfer.selection, which stands above it",
    ),
    "relative": (
        {"guard": "from .cli import main", "cli": ""},
        "guard imports autoxfer.cli.main, which stands above it",
    ),
    "circle_in_a_package": (
        {"tuning/study": "from autoxfer.tuning import journal", "tuning/journal": "import autoxfer.tuning.study"},
        "circle: ",
    ),
    "upwards_from_a_package": (
        {"tuning/study": "from autoxfer.selection import run", "selection": ""},
        "tuning.study imports autoxfer.selection.run, which stands above it",
    ),
    "circle": (
        {"metrics": "from autoxfer import linear", "linear": "from autoxfer import metrics"},
        "circle: ",
    ),
    "built_in": (
        {"selection": "from autoxfer_builtins import scratch"},
        "selection imports autoxfer_builtins.scratch, which is []'s",
    ),
    "front": ({"cli": "from autoxfer import Strategy"}, "cli imports autoxfer.Strategy through the front door"),
    "mlflow": ({"selection": "def f():\n    import mlflow.pytorch"}, "which is ['tracking']'s"),
    "study": ({"selection": "from optuna import create_study"}, "which is ['tuning']'s"),
    "entry_points": ({"cli": "from importlib.metadata import entry_points"}, "which is ['plugins']'s"),
    "homeless": ({"utilities": ""}, "utilities stands on no floor: add it to FLOORS"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_bites(tmp_path: Path, fault: str) -> None:
    files, message = FAULTS[fault]
    for name, code in files.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    assert any(message in found for found in violations(tmp_path)), violations(tmp_path)


def test_a_search_space_of_plain_data_is_fine_anywhere(tmp_path: Path) -> None:
    (tmp_path / "strategy.py").write_text("from optuna.distributions import FloatDistribution")
    (tmp_path / "selection.py").write_text("from autoxfer import __version__, guard")
    (tmp_path / "guard.py").write_text("from autoxfer.errors import InputError")
    assert violations(tmp_path) == []
