"""The papers' cards: that transfer helps and harms as expected, and that the guard tells the one from the other."""

from __future__ import annotations

import json
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

import autoxfer
from autoxfer import plugins

PAPERS = Path(__file__).resolve().parents[1] / "examples" / "papers"
sys.path.insert(0, str(PAPERS))

import card_a1  # noqa: E402
import card_a2  # noqa: E402
import card_b1  # noqa: E402
import card_b2  # noqa: E402
import card_b3  # noqa: E402
import card_c1  # noqa: E402
import card_c2  # noqa: E402
import card_d1  # noqa: E402
import card_d2  # noqa: E402
import card_d3  # noqa: E402
import card_d4  # noqa: E402
import phase_diagram  # noqa: E402

pytestmark = pytest.mark.slow

CARDS = {  # a card -> a figure that it expects, as printed
    card_a1: "(96.7)",
    card_a2: "(0.489)",
    card_b1: "(+0.263)",
    card_b2: "(0.0100)",
    card_b3: "(-0.117)",
    card_c1: "(-2.4)",
    card_c2: "(-9.7)",
    card_d1: "(0.372)",
    card_d2: "(5.57)",
    card_d3: "(0.875)",
    card_d4: "(0.961 -> 0.406)",
    phase_diagram: "%)",
}

N_GUARD = 400
TRAINED = {"lr": 0.003, "decay": 1e-4, "steps": 420, "batch": 16}  # as many steps as the card has
FIXED = {  # the baseline too: one network, one recipe
    "scratch": {"architecture": "compact", "dropout": 0.5, **TRAINED},
    "linear_probe": {"tap": "last", "normalisation": "none"},
    "residual": {"encoder": "compact", "normalisation": "none", "head_decay": 1e-4, "head_first": False, **TRAINED},
    "deep_residual": TRAINED,
}


@pytest.fixture(scope="module")
def digits() -> dict[str, Any]:
    rows = [row for row in card_a1.EXPECTED if row != (100, 0.4)]
    return card_a1.summarise({row: [card_a1.learn(*row, seed) for seed in range(5)] for row in rows})


@pytest.fixture(scope="module")
def filters() -> dict[str, Any]:
    return card_c2.summarise(
        {overlap: [card_c2.simulate(overlap, seed) for seed in range(12)] for overlap in card_c2.EXPECTED}
    )


def test_residual_integration_does_on_digits_what_its_card_says_and_the_guard_sees_it(digits: dict[str, Any]) -> None:
    assert [rule for rule, holds in digits["holds"].items() if not holds] == []


def test_the_accuracies_on_digits_are_near_those_of_the_card(digits: dict[str, Any]) -> None:
    for row in digits["rows"]:
        for name, seen in row["accuracy"].items():
            spread = 5.0 if row["changed"] and row["n"] == 100 else 2.5  # a spoilt source varies by 3 points
            assert np.mean(seen) == pytest.approx(row["expected"][name], abs=spread), (row["n"], row["changed"], name)


def test_partial_transfer_harms_and_helps_as_its_card_says_and_the_guard_sees_it(filters: dict[str, Any]) -> None:
    assert [rule for rule, holds in filters["holds"].items() if not holds] == []


def test_where_nothing_is_shared_half_a_source_is_refused_in_nine_draws_of_ten(filters: dict[str, Any]) -> None:
    decisions = [decision for decision, _ in filters["guard_at_half"][0.0]]
    assert decisions.count("harmful") >= 0.9 * len(decisions)


def test_the_gains_of_partial_transfer_are_near_those_of_the_card(filters: dict[str, Any]) -> None:
    up_to = card_c2.ALPHAS.index(0.5) + 1  # beyond, one draw differs from the next by 5 points and more
    for overlap, gains in filters["gains"].items():
        assert gains[:up_to] == pytest.approx(card_c2.EXPECTED[overlap][:up_to], abs=2.5), overlap


def fails(value: dict[str, Any]) -> list[str]:
    return [rule for rule, holds in value["holds"].items() if not holds]


def test_features_are_fate_as_the_closed_form_says() -> None:
    assert fails(card_b1.summarise(card_b1.simulate(100, 100), card_b1.simulate(400, 20))) == []


def test_where_transfer_turns_into_harm_the_papers_formula_does() -> None:
    angles, gammas = np.linspace(0.1, 1, 10) * np.pi / 2, np.arange(0.2, 2.01, 0.2).round(2)
    assert fails(phase_diagram.summarise(angles, gammas, 20, 200)) == []


def test_a_linear_network_that_starts_small_keeps_one_direction() -> None:
    assert (
        fails(card_b2.summarise({step: [card_b2.learn(step, seed) for seed in range(3)] for step in card_b2.STEPS}))
        == []
    )


def test_the_head_first_is_the_safer_start() -> None:
    trained = card_b3.average([card_b3.fine_tuned(seed) for seed in range(2)])
    assert fails(card_b3.summarise(*card_b3.simulate(240), trained)) == []


def test_a_rich_kernel_gains_what_the_closed_form_says() -> None:
    assert fails(card_d1.summarise(card_d1.simulate(20))) == []


def test_a_linear_source_leaves_one_spike_in_the_kernel() -> None:
    assert fails(card_d2.summarise([card_d2.simulate(seed) for seed in range(2)])) == []


def test_a_ridge_after_a_collapse_is_negative_transfer_exactly_where_it_is_foretold() -> None:
    assert fails(card_d3.summarise(card_d3.simulate(5))) == []


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.__name__)
def test_a_card_answers_in_json_alone_and_plots(
    card: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = tmp_path / "plot.png"
    monkeypatch.setattr(sys, "argv", ["card", "--smoke", "--json", "--plot", str(plot)])
    card.main()
    assert {"card", "holds"} <= json.loads(capsys.readouterr().out).keys()
    assert plot.stat().st_size > 0


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.__name__)
def test_a_card_prints_what_was_seen_beside_what_is_expected(
    card: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["card", "--smoke"])
    card.main()
    printed = capsys.readouterr().out
    assert CARDS[card] in printed
    assert printed.count("smoke: figures mean nothing") == 1
    assert "not asked: " in printed  # so small a size shows nothing


@pytest.fixture
def deep_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the deep head as somebody else's plugin."""
    installed, mine = plugins.entry_points, EntryPoint("deep_residual", "deep_residual", "autoxfer")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [*installed(group=group), mine])
    monkeypatch.delenv("AUTOXFER_PLUGINS", raising=False)


def run(place: Path, changed: float, seed: int) -> autoxfer.Result:
    """Let the product choose on 100 digits by fixed strategies, scratch among them; the source is the card's."""
    place.mkdir()
    examples, labels = (whole[card_a1.N_SOURCE :].numpy() for whole in card_a1.digits(seed))
    np.savez(place / "digits.npz", features=(examples + 1) * 8, labels=labels)
    donor = card_a1.source(changed, seed)
    assert donor.head is not None
    tensors = [*donor.suffix().state_dict().values(), donor.head.weight, donor.head.bias]
    names = card_a1.network().state_dict()
    save_file(dict(zip(names, (each.detach().contiguous() for each in tensors), strict=True)), place / "w.safetensors")
    (place / "mlflow.yaml").write_text("enabled: false\n")
    config = {
        "task": {
            "data": str(place / "digits.npz"),
            "splits": {"train": 100, "tune": 100, "guard": N_GUARD, "test": 597},
        },
        "sources": [
            {
                "name": "card",
                "model": f"{PAPERS / 'card_a1.py'}:network",
                "weights": str(place / "w.safetensors"),
                "input": {"shape": [64], "mean": [8.0], "std": [8.0]},
            }
        ],
        "strategies": [{name: params} for name, params in FIXED.items()],
        "budget": {"trials": 1, "min_trials": 1},
        "seed": seed,
        "device": "cpu",
    }
    return autoxfer.run(config, runs=place / "runs", mlflow=place / "mlflow.yaml")


@pytest.mark.usefixtures("deep_plugin")
def test_a_run_refuses_every_transfer_from_a_spoilt_source_and_deploys_scratch(tmp_path: Path) -> None:
    harmful = set()
    for seed in range(2):
        result = run(tmp_path / str(seed), 0.8, seed)
        assert result.verdicts.keys() == {"linear_probe@card", "residual@card", "deep_residual@card"}
        assert {verdict.n for verdict in result.verdicts.values()} == {N_GUARD}
        assert not any(verdict.accepted for verdict in result.verdicts.values())
        assert result.record.winner.strategy == "scratch"
        harmful |= {study for study, verdict in result.verdicts.items() if verdict.decision == "harmful"}
    assert "linear_probe@card" in harmful


@pytest.mark.usefixtures("deep_plugin")
def test_a_run_accepts_a_transfer_from_a_clean_source_on_four_seeds_of_five(tmp_path: Path) -> None:
    results = [run(tmp_path / str(seed), 0.0, seed) for seed in range(5)]
    assert sum(any(verdict.accepted for verdict in result.verdicts.values()) for result in results) >= 4
    assert sum(result.record.winner.strategy != "scratch" for result in results) >= 4
    assert all(verdict.n == N_GUARD for result in results for verdict in result.verdicts.values())
