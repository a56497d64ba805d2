"""Plugins are loaded each alone; a faulty one is refused by name and reason, and the others work."""

from __future__ import annotations

import importlib.metadata
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autoxfer import plugins
from autoxfer.dataset import DataSpec
from autoxfer.errors import InputError, PluginError
from autoxfer.plugins import PluginRecord, load_plugins
from autoxfer.records import SourceSpec

STRATEGY = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar
from autoxfer import Candidate, Problem, Strategy, hookimpl

@dataclass(frozen=True)
class {cls}(Strategy):
    name: ClassVar[str] = "{name}"
    strength: float = 0.01

    @classmethod
    def space(cls, problem):
        return {{}}

    def build(self, problem):
        raise NotImplementedError

@hookimpl
def autoxfer_strategies():
    return [{cls}]
"""
GOOD = STRATEGY.format(cls="Mine", name="mine")

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install distributions into an otherwise empty world: metadata and one module each, as pip would leave them."""

    def put(plugin: str, code: str, *, dist: str | None = None, version: str = "1.0", requires: str = "") -> None:
        dist = dist or f"autoxfer-{plugin.replace('_', '-')}"
        module = f"stranger_{dist.replace('-', '_')}_{plugin}"
        folder = tmp_path / f"{dist.replace('-', '_')}-{version}.dist-info"
        folder.mkdir(exist_ok=True)
        requires = f"Requires-Dist: {requires}\n" if requires else ""
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n{requires}")
        with (folder / "entry_points.txt").open("a") as lines:
            lines.write(f"[autoxfer]\n{plugin} = {module}\n")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(code))

    def find(group: str) -> list[importlib.metadata.EntryPoint]:
        found = importlib.metadata.distributions(path=[str(tmp_path)])
        return [point for dist in found for point in dist.entry_points if point.group == group]

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugins, "entry_points", find)
    monkeypatch.delenv("AUTOXFER_PLUGINS", raising=False)
    yield put
    for name in [name for name in sys.modules if name.startswith("stranger_")]:
        del sys.modules[name]


def record(name: str) -> PluginRecord:
    """Load everything and return the record of one plugin."""
    return next(record for record in load_plugins().records if record.name == name)


def test_a_good_plugin_is_loaded_and_says_what_it_offers(install: Install) -> None:
    install("mine", GOOD, version="2.3")
    loaded = load_plugins()
    assert loaded.strategy("mine").name == "mine"
    expected = PluginRecord("mine", "autoxfer-mine", "2.3", "loaded", strategies=("mine",))
    assert replace(loaded.records[0], seconds=0.0) == expected
    assert loaded.records[0].seconds > 0


FAULTS = {
    "import_error": ("import no_such_library", "No module named 'no_such_library'"),
    "broken_file": ("def (", "SyntaxError"),
    "raises_at_import": ("1 / 0", "ZeroDivisionError: division by zero"),
    "exits_at_import": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "misspelt_hook": (
        GOOD.replace("autoxfer_strategies", "autoxfer_strategy"),
        "unknown hook 'autoxfer_strategy'; did you mean 'autoxfer_strategies'?",
    ),
    "wrong_arguments": (GOOD.replace("autoxfer_strategies()", "autoxfer_strategies(register)"), "register"),
    "no_hook": ("x = 1", "offers nothing"),
    "raises_in_hook": (
        "from autoxfer import hookimpl\n@hookimpl\ndef autoxfer_strategies():\n    raise KeyError('x')",
        "hook autoxfer_strategies raised KeyError",
    ),
    "exits_in_hook": (
        "from autoxfer import hookimpl\n@hookimpl\ndef autoxfer_strategies():\n    raise SystemExit",
        "hook autoxfer_strategies raised SystemExit",
    ),
    "returns_no_list": (GOOD.replace("return [Mine]", "return Mine"), "must return a list of classes"),
    "offers_no_strategy": (GOOD.replace("return [Mine]", "return [int]"), "expected a subclass of Strategy"),
    "offers_an_instance": (GOOD.replace("return [Mine]", "return [Mine()]"), "expected a subclass of Strategy"),
    "offers_twice": (GOOD.replace("return [Mine]", "return [Mine, Mine]"), "offered twice"),
    "newer_api": (GOOD.replace("strength:", "api: ClassVar[int] = 2\n    strength:"), "upgrade autoxfer"),
    "older_api": (GOOD.replace("strength:", "api: ClassVar[int] = 0\n    strength:"), "upgrade the plugin"),
    "no_build": (GOOD.replace("def build", "def built"), "does not define build"),
    "no_name": (GOOD.replace('name: ClassVar[str] = "mine"', "pass"), "must be an identifier"),
    "bad_name": (GOOD.replace('"mine"', '"my method"'), "must be an identifier"),
    "not_frozen": (GOOD.replace("(frozen=True)", "()"), "frozen dataclass"),
    "no_default": (GOOD.replace("strength: float = 0.01", "strength: float"), "has no plain default"),
    "taken_field": (GOOD.replace("strength", "batch"), "belong to the recipe: batch"),
    "raising_default": (
        GOOD.replace(
            "    @classmethod", "    def __post_init__(self):\n        raise ValueError('no')\n\n    @classmethod"
        ),
        "ValueError: no",
    ),
    "bad_recipe": (GOOD.replace("strength:", "recipe: ClassVar = {}\n    strength:"), "must be a Recipe or None"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_plugin_is_refused_by_name_and_reason_while_the_others_work(install: Install, fault: str) -> None:
    code, reason = FAULTS[fault]
    install(fault, code)
    install("a_neighbour", STRATEGY.format(cls="Near", name="near"))
    install("z_neighbour", STRATEGY.format(cls="Far", name="far"))
    refused = record(fault)
    assert refused.state == "refused"
    assert reason in refused.reason
    assert set(load_plugins().strategies) == {"near", "far"}


def test_an_interrupt_is_the_users_and_is_not_swallowed(install: Install) -> None:
    install("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        load_plugins()


def test_a_missing_extra_is_unavailable_and_one_command_cures_it(install: Install) -> None:
    install("fancy", "import no_such.thing", requires="no-such>=1; extra == 'fast'")
    assert record("fancy").state == "unavailable"
    assert record("fancy").reason == "no_such is not installed: pip install 'autoxfer-fancy[fast]'"


def test_a_missing_extra_that_shows_in_a_hook_is_unavailable_too(install: Install) -> None:
    code = "from autoxfer import hookimpl\n@hookimpl\ndef autoxfer_sources():\n    import no_such\n"
    install("fancy", code, requires='no_such ; extra == "fast"')
    assert record("fancy").state == "unavailable"


def test_a_missing_hard_requirement_is_a_fault_and_no_extra(install: Install) -> None:
    install("fancy", "import no_such", requires="no-such>=1")
    assert record("fancy").state == "refused"


def test_a_taken_strategy_name_is_refused_and_both_distributions_are_named(install: Install) -> None:
    install("first", GOOD, dist="autoxfer-first", version="0.1")
    install("second", GOOD, dist="autoxfer-second")
    refused = record("second")
    assert (refused.distribution, refused.state) == ("autoxfer-second", "refused")
    assert refused.reason == "strategy 'mine' already comes from autoxfer-first 0.1"
    assert load_plugins().strategy("mine").__module__.startswith("stranger_autoxfer_first")


def test_a_taken_plugin_name_is_refused_and_both_distributions_are_named(install: Install) -> None:
    install("mine", GOOD, dist="autoxfer-first", version="0.1")
    install("mine", STRATEGY.format(cls="Other", name="other"), dist="autoxfer-second")
    reasons = {record.distribution: record.reason for record in load_plugins().records}
    assert reasons["autoxfer-second"] == "plugin 'mine' already comes from autoxfer-first 0.1"


def test_no_stranger_takes_a_built_ins_name(install: Install) -> None:
    install("mine", GOOD, dist="aaa-earlier-in-the-alphabet")
    install("mine", GOOD, dist="autoxfer", version="0.1.0")
    loaded = load_plugins()
    assert [record.distribution for record in loaded.records if record.state == "loaded"] == ["autoxfer"]
    assert loaded.records[1].reason == "plugin 'mine' already comes from autoxfer 0.1.0"


def test_nothing_of_a_refused_plugin_is_admitted(install: Install) -> None:
    install("half", GOOD.replace("return [Mine]", "return [Mine, int]"))
    assert not load_plugins().strategies


def test_an_unknown_strategy_names_the_nearest_and_all_that_are_installed(install: Install) -> None:
    install("mine", GOOD)
    with pytest.raises(InputError, match=r"\(mine\), found 'mime'; did you mean 'mine'\?"):
        load_plugins().strategy("mime")


def test_a_refused_plugins_strategy_is_answered_with_the_reason(install: Install) -> None:
    install("mine", GOOD.replace("strength: float = 0.01", "batch: int = 2"))
    with pytest.raises(InputError, match="its plugin is refused: Mine has fields"):
        load_plugins().strategy("mine")


def test_an_environment_variable_leaves_only_the_built_ins_or_those_it_names(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        install(name, STRATEGY.format(cls=name.title(), name=name))
    install("core", STRATEGY.format(cls="Core", name="core"), dist="autoxfer")
    monkeypatch.setenv("AUTOXFER_PLUGINS", "")
    assert set(load_plugins().strategies) == {"core"}
    monkeypatch.setenv("AUTOXFER_PLUGINS", "two")
    assert set(load_plugins().strategies) == {"core", "two"}
    monkeypatch.setenv("AUTOXFER_PLUGINS", "autoxfer_one, two")
    assert set(load_plugins().strategies) == {"core", "one", "two"}
    monkeypatch.setenv("AUTOXFER_PLUGINS", "twoo")
    with pytest.raises(InputError, match=r"AUTOXFER_PLUGINS.*did you mean 'two'"):
        load_plugins()


def test_a_plugin_that_is_switched_off_is_not_even_imported(install: Install) -> None:
    install("mine", "raise KeyboardInterrupt")
    loaded = load_plugins(disabled=["mine"])
    assert (loaded.records[0].state, loaded.strategies) == ("disabled", {})
    with pytest.raises(InputError, match="its plugin is disabled: switched off by name"):
        loaded.strategy("mine")
    with pytest.raises(InputError, match=r"plugins\.disable.*did you mean 'mine'"):
        load_plugins(disabled=["mien"])


LOADER = """
from autoxfer import SourceLoader, hookimpl

class Loader(SourceLoader):
    name = "{name}"

    def loads(self, spec):
        return {answer}

    def load(self, spec):
        raise NotImplementedError

@hookimpl
def autoxfer_sources():
    return [Loader]
"""


def test_a_source_goes_to_the_loader_that_claims_it(install: Install) -> None:
    install("zoo", LOADER.format(name="zoo", answer="spec.model.startswith('zoo:')"))
    install("faulty", LOADER.format(name="faulty", answer="1 / 0"))
    assert load_plugins().loader_for(SourceSpec("a", "zoo:net")).name == "zoo"
    with pytest.raises(InputError, match="faulty raised ZeroDivisionError"):
        load_plugins().loader_for(SourceSpec("a", "ark:net"))


def test_a_source_that_two_loaders_claim_is_neithers(install: Install) -> None:
    install("one", LOADER.format(name="one", answer="True"))
    install("two", LOADER.format(name="two", answer="True"))
    with pytest.raises(PluginError, match="claimed by one and two"):
        load_plugins().loader_for(SourceSpec("a", "zoo:net"))


def test_a_data_set_that_no_reader_knows_is_answered_with_the_readers(install: Install) -> None:
    install("fancy", "import no_such", requires="no-such; extra == 'fast'")
    with pytest.raises(InputError, match=r"data set reader \(none\), found 'x.zarr' \(fancy is unavailable: no_such"):
        load_plugins().reader_for(DataSpec("x.zarr"))
