"""One wheel holds the package and the built-ins, and nothing else; every built-in comes through its own entry point."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BUILT_INS = ROOT / "plugins" / "autoxfer_builtins"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built from this checkout without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_the_package_and_the_built_ins_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in files} == {"autoxfer", "autoxfer_builtins"}
    folders = (ROOT / "autoxfer", BUILT_INS)
    wanted = {
        path.relative_to(folder.parent).as_posix()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert files == wanted
    assert "autoxfer/py.typed" in files, "the package says that it is typed"


def test_the_wheel_carries_licence_readme_and_version(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = message_from_string(wheel.read(name).decode())
    assert metadata["Version"] == _version()
    assert metadata["License-Expression"] == "Apache-2.0"
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.namelist())
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_the_version_is_the_changelogs_newest() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == _version()


def test_every_built_in_file_has_exactly_one_entry_point() -> None:
    lines = PROJECT["entry-points"]["autoxfer"]
    files = {f"autoxfer_builtins.{path.stem}" for path in BUILT_INS.glob("*.py") if "@hookimpl" in path.read_text()}
    assert sorted(lines.values()) == sorted(files)
    assert all(module == f"autoxfer_builtins.{name}" for name, module in lines.items())


def test_every_installed_entry_point_resolves_to_a_module() -> None:
    points = importlib.metadata.distribution("autoxfer").entry_points.select(group="autoxfer")
    assert {point.name: point.value for point in points} == PROJECT["entry-points"]["autoxfer"]
    assert [point.name for point in points if importlib.util.find_spec(point.module) is None] == []


def test_the_constraints_are_names_and_versions_only_and_cover_what_is_required() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line)] == []
    pinned = {_canonical(line.partition("==")[0]) for line in lines}
    assert len(pinned) == len(lines)
    required = [*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)]
    names = {_canonical(name[0]) for line in required if (name := re.match(r"[A-Za-z0-9._-]+", line))}
    assert names - {"autoxfer"} <= pinned


@pytest.mark.parametrize("name", ["run", "test"])
def test_the_readme_has_the_commands_that_others_read_from_it(name: str) -> None:
    block = re.search(rf"<!-- command: {name} -->\n+```bash\n(.+?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None
    assert "pip install -c constraints.txt" in block[1]
    assert {"run": "autoxfer run examples/digits/run.yaml", "test": "pytest"}[name] in block[1]


def test_the_ci_script_runs_the_readmes_own_command() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111, "it must be executable"
    assert "<!-- command: test -->" in script.read_text()
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_ci_script_prints_pytests_closing_line_last_and_keeps_its_status(tmp_path: Path) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    command = "echo '== 3 passed in 0.1s ==' && echo 'a warning at exit' && exit 3"
    (tmp_path / "README.md").write_text(
        f"# x\n\n<!-- command: test -->\n```bash\n{command}\n```\n\n```bash\nexit 9\n```\n"
    )
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", str(tmp_path)]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-qm", "x", "--no-verify"]):
        subprocess.run([*git, *arguments], check=True)
    done = subprocess.run([str(tmp_path / ".ci" / "run")], capture_output=True, text=True, check=False, cwd="/")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (3, "== 3 passed in 0.1s =="), done


def _version() -> str:
    found = re.search(r'^__version__ = "(.+)"', (ROOT / "autoxfer" / "__init__.py").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
