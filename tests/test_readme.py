"""The README keeps its word: its plugin is the one that is tested, its run file loads, its commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from autoxfer.cli import main
from autoxfer.config import load_config

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_the_plugin_in_the_readme_is_the_one_that_the_tests_install() -> None:
    assert (ROOT / "tests" / "stranger" / "autoxfer_bitfit.py").read_text(encoding="utf-8") in blocks("python")


def test_the_plugins_entry_point_is_the_strangers() -> None:
    (block,) = blocks("toml")
    assert block.strip() in (ROOT / "tests" / "stranger" / "pyproject.toml").read_text(encoding="utf-8")


def test_the_run_file_in_the_readme_is_accepted(tmp_path: Path) -> None:
    (block,) = blocks("yaml")
    config = load_config(yaml.safe_load(block))
    assert [source.name for source in config.sources] == ["mine", "resnet"]
    assert config.strategies is not None
    assert dict(config.strategies[1].params) == {"width": 32}


@pytest.mark.parametrize("command", sorted(set(re.findall(r"^autoxfer .*?(?=\s{2,}#|$)", README, re.MULTILINE))))
def test_every_command_in_the_readme_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = shlex.split(command.split(">", maxsplit=1)[0], comments=True)[1:]
    names = [word for word in words if re.fullmatch(r"[a-z]+", word)][:2]
    if names[0] not in ("config", "plugins"):
        names = names[:1]
    with pytest.raises(SystemExit) as exit_:
        main([*names, "--help"])
    assert not exit_.value.code, names
    shown = capsys.readouterr().out
    assert all(word in shown for word in words if word.startswith("--"))


def test_the_verdict_words_are_all_explained() -> None:
    for word in ("accepted", "harmful", "undecided", "untested"):
        assert f"| `{word}` |" in README


def test_every_file_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
    named = re.findall(r"examples/[\w/]+\.yaml", README)
    assert [name for name in named if not (ROOT / name).exists()] == []
