from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from autoxfer.config import RunConfig, load_config, schema, template
from autoxfer.errors import InputError

FULL = """\
task:
  data: sklearn:digits
  target: label
  metric: accuracy
  splits: {tune: 0.2, guard: 0.2, test: 0.1}
sources:
  - {name: even, model: mypackage.nets:SmallCNN, weights: even.safetensors}
  - timm:resnet18.a1_in1k
strategies:
  - scratch
  - linear_probe
  - residual: {width: 32}
  - partial_transfer: {fraction: [0.5, 1.0]}
  - fine_tune: {lr: {low: 1e-4, high: 1.0e-2}}
  - adapters
budget: {trials: 30, seconds: 600}
guard: {alpha: 0.05, margin: 0.0, when_undecided: scratch}
device: auto
final: tested
seed: 0
"""


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(FULL)
    return path


def refusal(*args: object, **kwargs: object) -> InputError:
    with pytest.raises(InputError) as caught:
        load_config(*args, **kwargs)  # type: ignore[arg-type]
    return caught.value


def test_the_run_file_of_the_design_is_read_as_it_stands(run_file: Path) -> None:
    config = load_config(run_file)
    assert config.task.splits == {"tune": 0.2, "guard": 0.2, "test": 0.1}
    assert config.strategies is not None
    assert [(item.name, item.params) for item in config.strategies] == [
        ("scratch", {}),
        ("linear_probe", {}),
        ("residual", {"width": 32}),
        ("partial_transfer", {"fraction": [0.5, 1.0]}),
        ("fine_tune", {"lr": {"low": 1e-4, "high": 1e-2}}),
        ("adapters", {}),
    ]
    assert (config.budget.trials, config.budget.seconds, config.budget.min_trials) == (30, 600, 5)


def test_defaults_are_those_of_the_design() -> None:
    config = load_config({"task": {"data": "sklearn:digits"}})
    assert (config.budget.trials, config.budget.seconds, config.budget.min_trials) == (30, None, 5)
    assert (config.guard.alpha, config.guard.margin, config.guard.when_undecided) == (0.05, 0, "scratch")
    assert (config.device, config.engine, config.final, config.seed) == ("auto", "local", "tested", 0)
    assert (config.sources, config.strategies, config.plugins.disable) == ((), None, ())


def test_paths_stay_as_given_and_start_at_the_run_files_folder(
    run_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path.parent)
    even, resnet = load_config(Path(tmp_path.name) / "run.yaml").to_source_specs()
    assert (even.weights, even.directory) == (Path("even.safetensors"), tmp_path)
    assert (even.name, resnet.name, resnet.weights) == ("even", "resnet18.a1_in1k", None)


def test_the_resolved_configuration_means_the_same_from_anywhere(
    run_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(run_file, ["seed=3"])
    stored = tmp_path / "runs" / "config.yaml"
    stored.parent.mkdir()
    stored.write_text(yaml.safe_dump(config.resolved()))
    monkeypatch.chdir("/")
    again = load_config(stored)
    assert again == config
    assert load_config(again) == config
    assert again.resolved() == config.resolved()


def test_moving_the_run_file_is_no_new_look_but_any_other_change_is(run_file: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "run.yaml"
    moved.parent.mkdir()
    moved.write_text(FULL)
    assert load_config(moved).fingerprint() == load_config(run_file).fingerprint()
    assert load_config(run_file, ["seed=1"]).fingerprint() != load_config(run_file).fingerprint()


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("timm:resnet18.a1_in1k", "resnet18.a1_in1k"),
        ("package.nets:SmallCNN", "smallcnn"),
        ("nets:SmallCNN", "smallcnn"),
        ("nets/small.py:make", "make"),
        ("hf:sentence-transformers/all-MiniLM-L6-v2", "all-minilm-l6-v2"),
        ({"model": "package.nets:SmallCNN", "weights": "w/even.v2.safetensors"}, "even.v2"),
        ({"model": "timm:resnet18", "weights": "model.safetensors"}, "resnet18"),
    ],
)
def test_a_source_is_named_after_its_weights_or_its_model(given: object, name: str) -> None:
    config = load_config({"task": {"data": "x.csv"}, "sources": [given]})
    assert [source.name for source in config.sources] == [name]


@pytest.mark.parametrize(
    ("data", "name"), [("sklearn:digits", "digits"), ("data/Wine red.csv", "wine-red"), ("photos/", "photos")]
)
def test_a_task_is_named_after_its_data(data: str, name: str) -> None:
    assert load_config({"task": {"data": data}}).task.name == name


def test_options_override_the_file_key_by_key(run_file: Path) -> None:
    overrides = [
        "budget.trials=5",
        "sources.0.weights=/w/other.safetensors",
        "sources.1.weights=local.safetensors",  # given as a name so far
        "strategies.1.linear_probe.penalty=[0.1, 1]",
        "strategies.6=lora",  # one past the end
        "guard={alpha: 1e-2}",
        "task.splits.guard=400",
    ]
    config = load_config(run_file, overrides)
    assert config.budget.trials == 5
    assert config.guard.alpha == 0.01
    assert config.task.splits is not None
    assert config.task.splits["guard"] == 400
    assert [source.weights for source in config.sources] == ["/w/other.safetensors", "local.safetensors"]
    assert config.strategies is not None
    assert config.strategies[1].params == {"penalty": [0.1, 1]}
    assert config.strategies[6].name == "lora"


def test_the_quick_way_needs_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sources = ["timm:resnet18", "{model: nets:SmallCNN, weights: w.safetensors}"]
    config = load_config(None, ["budget.trials=3"], data="red.csv", sources=sources, target="quality")
    assert (config.task.data, config.task.target, config.directory) == ("red.csv", "quality", tmp_path)
    assert [source.name for source in config.sources] == ["resnet18", "w"]
    assert config.to_data_spec().location == "red.csv"


def test_switched_off_plugins_add_up(run_file: Path) -> None:
    config = load_config(run_file, ["plugins.disable=[bitfit]"], disable=["lora", "bitfit"])
    assert config.plugins.disable == ("bitfit", "lora")


def test_an_empty_section_is_no_section(run_file: Path) -> None:
    assert load_config(run_file, ["budget=", "guard="]).budget.trials == 30


@pytest.mark.parametrize(
    ("override", "expected", "found"),
    [
        ("budget.trials=0", "a whole number of at least 1", "0"),
        ("budget.trials=2.5", "a whole number of at least 1", "2.5"),
        ("budget.trials='5'", "a whole number of at least 1", "'5'"),
        ("budget.trials=true", "a whole number of at least 1", "true"),
        ("budget.seconds=0", "a number above 0", "0"),
        ("budget.seconds=.inf", "a number above 0", "inf"),
        ("budget.seconds=soon", "a number above 0", "'soon'"),
        ("budget.min_trials=0", "a whole number of at least 1", "0"),
        (
            "budget.trails=3",
            "one of trials, seconds, trial_seconds, min_trials",
            "unknown key 'trails'; did you mean 'trials'?",
        ),
        ("budget.5=3", "one of trials, seconds, trial_seconds, min_trials", "unknown key 5"),
        ("budget=5", "a mapping", "5"),
        ("guard.alpha=0", "a number above 0 and below 0.5", "0"),
        ("guard.alpha=1", "a number above 0 and below 0.5", "1"),
        ("guard.alpha=0.5", "a number above 0 and below 0.5", "0.5"),
        ("guard.alpha=.nan", "a number above 0 and below 0.5", "nan"),
        ("guard.margin=-0.01", "a number from 0 to below 1", "-0.01"),
        ("guard.when_undecided=coin", "scratch or best_tune", "'coin'"),
        ("final=both", "tested or refit", "'both'"),
        ("engine=ray", "local", "'ray'"),
        ("device=gpu", "auto, cpu, cuda or cuda:N", "'gpu'"),
        ("seed=-1", "a whole number of at least 0", "-1"),
        ("task.data=3", "a path or scheme:NAME, as text", "3"),
        ("task.target=2020", "text, in quotes where it is a number", "2020"),
        ("task.kind=classify", "classification, multilabel or regression", "'classify'"),
        ("task.target=[]", "a column's name, or a list of names", "[]"),
        ("task.target=[a, 3]", "a column's name, or a list of names", "3"),
        ("task.target=[a, b, a]", "a list of different names", "'a', 2 times"),
        ("task.name=a/b", "letters, digits, '.', '_' and '-'", "'a/b'"),
        ("task.splits.guard=-0.1", "a fraction between 0 and 1, or a count of at least 1", "-0.1"),
        ("task.splits.guard=1.0", "a fraction between 0 and 1, or a count of at least 1", "1.0"),
        ("task.splits.guard=0", "a fraction between 0 and 1, or a count of at least 1", "0"),
        ("task.splits.gard=0.1", "one of train, tune, guard, test", "unknown key 'gard'; did you mean 'guard'?"),
        ("task.splits={guard: 0.9, tune: 0.2}", "fractions that sum to at most 1", "a sum of 1.1"),
        ("task.splits={guard: 0.5, tune: 0.5}", "fractions that leave something to train on", "a sum of 1"),
        ("task.splits=[1]", "a mapping from train, tune, guard, test to fractions or counts", "[1]"),
        ("sources=timm:x", "a list of sources", "'timm:x'"),
        ("sources.2=3", "scheme:NAME, or a mapping with name, model, weights", "3"),
        ("sources.9=x", "an index below 2, counted from 0", "9"),
        ("sources.first=x", "an index below 2, counted from 0", "'first'"),
        ("sources.0.weights=3", "a path, as text", "3"),
        ("sources.0.wieghts=x", "one of name, model, weights, input, options", "unknown key 'wieghts'; did you"),
        ("sources.1=timm:even", "every name once", "'even' at 0 and 1"),
        ("strategies=[]", "a list of strategies", "[]"),
        ("strategies.1=scratch", "every name once", "'scratch' at 0 and 1"),
        ("strategies.1=3", "a strategy's name, or one name with its parameters", "3"),
        ("strategies.1={a: 1, b: 2}", "a strategy's name, or one name with its parameters", "{a: 1, b: 2}"),
        ("strategies.1={a: 1}", "a mapping from parameters to values", "1"),
        ("strategies.1={a: {b: {low: 2, high: 1}}}", "a value, a list of different choices, or {low, high}", "{low: 2"),
        ("strategies.1={a: {b: {low: 2}}}", "a value, a list of different choices, or {low, high}", "{low: 2}"),
        ("strategies.1={a: {b: []}}", "a value, a list of different choices, or {low, high}", "[]"),
        ("strategies.1={a: {b: [1, 1]}}", "a value, a list of different choices, or {low, high}", "[1, 1]"),
        ("plugins.disable=x", "a list of names", "'x'"),
        ("tasks=1", "one of task, sources", "unknown key 'tasks'; did you mean 'task'?"),
    ],
)
def test_one_message_says_what_was_expected_and_what_was_found(
    run_file: Path, override: str, expected: str, found: str
) -> None:
    error = refusal(run_file, [override])
    assert error.expected.startswith(expected)
    assert error.found.startswith(found)
    assert error.where == f"-o {override}"


@pytest.mark.parametrize(
    ("old", "new", "where", "found"),
    [
        ("trials: 30", "trials: -3", "budget.trials (line 16)", "-3"),
        ("device:", "devise:", "devise (line 18)", "unknown key 'devise'; did you mean 'device'?"),
        ("seed: 0", "seed: 0\nseed: 1", "seed", "'seed' on lines 20 and 21"),
        ("width: 32", "width: 32, width: 64", "strategies.2.residual.width", "'width' on lines 12 and 12"),
        ("guard: 0.2", "guard: 0.9", "task.splits (line 5)", "a sum of 1.2"),
        ("lr: {low: 1e-4", "lr: {low: 1", "strategies.4.fine_tune.lr (line 14)", "{low: 1, high: 0.01}"),
        ("  data: sklearn:digits\n", "", "task (line 1)", "nothing"),
        ("seed: 0", "seed: &x 0\ndevice2: *x", "device2", "a YAML alias (*name)"),
    ],
)
def test_the_message_names_the_line(run_file: Path, old: str, new: str, where: str, found: str) -> None:
    run_file.write_text(FULL.replace(old, new))
    error = refusal(run_file)
    assert error.where == f"{run_file}: {where}"
    assert error.found == found


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "nothing"),
        (b"- 1\n", "[1]"),
        (b"task: [1\n", "expected ',' or ']'"),
        (b"task: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
        (b"\xff\xfe\x00\x01", "bytes that are no text"),
        (b"task: {data: x}\n---\ntask: {data: y}\n", "but found another document"),
        (b"\ttask: 1\n", "found character '\\t'"),
    ],
)
def test_a_file_that_is_no_run_file_is_refused(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_bytes(content)
    error = refusal(path)
    assert error.found.startswith(found)
    assert error.where.startswith(str(path))


def test_a_missing_file_suggests_the_one_beside_it(run_file: Path) -> None:
    assert refusal(run_file.with_name("runs.yaml")).found == "no such file; did you mean 'run.yaml'?"
    assert refusal(run_file.parent).expected == "a run file"


def test_a_file_and_quick_flags_exclude_each_other(run_file: Path) -> None:
    assert refusal(run_file, data="x.csv").found == "both"
    assert refusal().found == "neither"
    assert refusal(sources=["timm:x"]).found == "only --source"


def test_plain_scalars_mean_what_they_look_like() -> None:
    text = {"a": "1e-4", "b": "yes", "c": "010", "d": "2020-01-01", "e": "1:30", "f": "1.", "g": "0"}
    overrides = [f"strategies.0.x.{key}={value}" for key, value in text.items()]
    config = load_config({"task": {"data": "x.csv"}, "strategies": ["x"]}, overrides)
    assert config.strategies is not None
    values = {"a": 1e-4, "b": "yes", "c": "010", "d": "2020-01-01", "e": "1:30", "f": 1.0, "g": 0}
    assert config.strategies[0].params == values


def test_the_callers_mapping_is_left_alone() -> None:
    given = {"task": {"data": "x.csv"}, "budget": {"trials": 3}}
    load_config(given, ["budget.trials=5"])
    assert given == {"task": {"data": "x.csv"}, "budget": {"trials": 3}}


@pytest.mark.parametrize("given", [5, ["run.yaml"], b"run.yaml", 1.5])
def test_what_is_no_configuration_is_refused_in_words(given: object) -> None:
    refused = refusal(given)
    assert refused.expected == "a run file's path, or a mapping"
    assert type(given).__name__ in refused.found


def test_a_checked_configuration_can_be_loaded_again() -> None:
    config = load_config({"task": {"data": "x.csv"}})
    assert RunConfig.model_validate({"task": config.task, "sources": config.sources}).task == config.task
    assert load_config(config, ["seed=4"]).seed == 4


def test_the_template_is_a_run_file_with_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(template())
    config = load_config(path)
    assert config == load_config({"task": {"data": "sklearn:digits"}, "directory": str(tmp_path)})


def test_the_schema_lists_every_key_and_both_forms_of_a_source() -> None:
    plain = json.loads(json.dumps(schema()))
    assert set(plain["properties"]) == set(RunConfig.model_fields)
    assert {item.get("type", "$ref") for item in plain["properties"]["sources"]["items"]["anyOf"]} == {"string", "$ref"}


def test_a_configuration_is_read_without_torch() -> None:
    code = "import sys, autoxfer.config; sys.exit(bool({'torch', 'mlflow', 'optuna', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
