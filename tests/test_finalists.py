"""From finalists to a winner: what is pure about a run's end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autoxfer.errors import AutoxferError
from autoxfer.finalists import Finalist, certified, choose, entry, judge, no_trial, under_tuned, untested
from autoxfer.metrics import get_metric
from autoxfer.records import Outcome, Score, StudyResult, Trial, TrialState, Verdict

N = 400
ACCURACY = get_metric("accuracy", "classification")


def study(
    strategy: str, states: str = "ccccc", rank: float = 0.8, n_trained: int = 10, loss: float = 0.5
) -> StudyResult:
    words: dict[str, TrialState] = {"c": "complete", "p": "pruned", "f": "failed"}
    trials = tuple(
        Trial(
            number,
            {"number": number},
            Outcome(
                words[state],
                None if state == "f" else Score(rank, rank, loss + 0.01 * number),
                n_trained=n_trained,
                reason="it broke" if state == "f" else "",
            ),
        )
        for number, state in enumerate(states)
    )
    source = None if strategy == "scratch" else "net"
    return StudyResult(strategy if source is None else f"{strategy}@net", strategy, source, trials, 1.0)


def finalist(result: StudyResult, wrong: int, tune_wrong: int = 20) -> Finalist:
    """Make one that errs on the last ``wrong`` of the guard examples."""
    assert result.best is not None
    loss, tune_loss = np.zeros(N), np.zeros(100)
    loss[N - wrong :] = 1.0
    tune_loss[:tune_wrong] = 1.0
    composed: Any = None
    return Finalist(result, result.best, composed, 1 - wrong / N, loss, tune_loss)


def judged(results: list[StudyResult], wrong: dict[str, int], **settings: Any) -> dict[str, Verdict]:
    finalists = {r.id: finalist(r, wrong[r.strategy]) for r in results if r.best is not None}
    defaults: dict[str, Any] = {"alpha": 0.05, "margin": 0.0, "min_trials": 5, "n_guard": N}
    return judge(results, finalists, ACCURACY, **{**defaults, **settings})


def test_better_is_accepted_and_worse_is_harmful() -> None:
    results = [study("scratch", rank=0.7), study("good", rank=0.9), study("bad", rank=0.8)]
    verdicts = judged(results, {"scratch": 100, "good": 60, "bad": 140})
    assert {name: verdict.decision for name, verdict in verdicts.items()} == {
        "good@net": "accepted",
        "bad@net": "harmful",
    }
    assert (verdicts["good@net"].fixed, verdicts["good@net"].broken) == (40, 0)


def test_what_tuned_far_below_scratch_cannot_be_accepted_however_good_it_looks_on_guard() -> None:
    results = [study("scratch", rank=0.9), study("lucky", rank=0.8), study("near", rank=0.89)]
    finalists = {
        r.id: finalist(r, wrong, tune_wrong)
        for r, wrong, tune_wrong in zip(results, (100, 20, 20), (10, 20, 11), strict=True)
    }
    verdicts = judge(results, finalists, ACCURACY, alpha=0.05, margin=0.0, min_trials=5, n_guard=N)
    assert verdicts["lucky@net"].decision == "undecided"
    assert verdicts["lucky@net"].level == 0
    assert verdicts["near@net"].accepted  # one example of a hundred is within the noise of the tune split


def test_of_equal_scores_the_lower_loss_competes_and_comes_first() -> None:
    results = [study("scratch", rank=0.9, loss=0.5), study("a", rank=0.9, loss=0.4), study("b", rank=0.9, loss=0.3)]
    verdicts = judged(results, {"scratch": 100, "a": 99, "b": 98})
    assert verdicts["b@net"].level == verdicts["a@net"].level == 0.025
    three = [*results, study("c", rank=0.9, loss=0.2)]
    verdicts = judged(three, {"scratch": 100, "a": 99, "b": 98, "c": 97})
    assert [verdicts[f"{name}@net"].level for name in "cba"] == [0.025, 0.0125, 0.0125]


def test_an_under_tuned_baseline_decides_nothing() -> None:
    results = [study("scratch", "cccc"), study("good", rank=0.9)]
    verdict = judged(results, {"scratch": 100, "good": 0})["good@net"]
    assert verdict.decision == "untested"
    assert verdict.reason == "undecided: the baseline is under-tuned (4 completed trials, 5 needed)"


def test_pruned_and_failed_trials_do_not_tune_a_baseline() -> None:
    assert under_tuned(study("scratch", "ccccpppfff"), 5) != ""
    assert under_tuned(study("scratch", "cccccpppff"), 5) == ""


def test_a_study_without_a_completed_trial_is_untested_and_says_why() -> None:
    results = [study("scratch"), study("broken", "ff")]
    verdict = judged(results, {"scratch": 100})["broken@net"]
    assert verdict.decision == "untested"
    assert "it broke" in verdict.reason
    assert no_trial(study("idle", "")) == "no trial was completed"


def test_without_any_scratch_nothing_is_judged_and_nothing_ships() -> None:
    results = [study("scratch", "fffff"), study("good", rank=0.9)]
    verdicts = judged(results, {"good": 0})
    assert verdicts["good@net"].decision == "untested"
    with pytest.raises(AutoxferError, match="no trial of scratch"):
        choose({"good@net": finalist(results[1], 0)}, verdicts)


def verdict_of(decision: str) -> Verdict:
    return Verdict(decision, 0.1, 0.0, 0.2, 0.01, 0.05, "exact McNemar", N, 1, 0, 0.05, "")  # type: ignore[arg-type]


def winner(tuned: dict[str, tuple[float, int, int]], decisions: dict[str, str], elsewhere: str = "") -> str:
    """``tuned``: strategy -> tune rank, tune errors of 100, trained parameters; one may err on other examples."""
    finalists = {}
    for strategy, (rank, tune_wrong, n_trained) in tuned.items():
        result = study(strategy, rank=rank, n_trained=n_trained)
        made = finalist(result, 50, tune_wrong)
        finalists[result.id] = replace(made, tune_loss=made.tune_loss[::-1]) if strategy == elsewhere else made
    return choose(finalists, {f"{name}@net": verdict_of(decision) for name, decision in decisions.items()})


def test_nothing_accepted_means_scratch() -> None:
    tuned = {"scratch": (0.5, 50, 10), "a": (0.9, 10, 10)}
    assert winner(tuned, {"a": "undecided"}) == "scratch"
    assert winner(tuned, {"a": "accepted"}) == "a@net"


def test_the_best_tune_score_wins_unless_a_smaller_one_is_as_good() -> None:
    near = {"scratch": (0.5, 50, 1), "large": (0.90, 10, 1000), "small": (0.88, 12, 10)}
    far = {"scratch": (0.5, 50, 1), "large": (0.90, 10, 1000), "small": (0.80, 20, 10)}
    both = {"large": "accepted", "small": "accepted"}
    assert winner(near, both, elsewhere="small") == "small@net"  # fixed 10, broke 12 of 100: an error of 4.7
    assert winner(far, both, elsewhere="small") == "large@net"  # fixed 10, broke 20: 10 more, an error of 5.5
    assert winner(near, {"large": "accepted", "small": "undecided"}, elsewhere="small") == "large@net"


def test_what_only_breaks_is_not_as_good_however_the_losses_spread() -> None:
    tuned = {"scratch": (0.5, 50, 1), "large": (0.90, 10, 1000), "small": (0.88, 12, 10)}
    assert winner(tuned, {"large": "accepted", "small": "accepted"}) == "large@net"  # 2 more, an error of 1.4


def test_of_two_with_as_many_parameters_the_better_one_wins() -> None:
    tuned = {"scratch": (0.5, 50, 1), "worse": (0.89, 11, 10), "better": (0.90, 10, 10)}
    assert winner(tuned, {"worse": "accepted", "better": "accepted"}) == "better@net"


def test_a_line_counts_what_became_of_the_trials() -> None:
    result = study("a", "ccpf", rank=0.9)
    line = entry(result, finalist(result, 40), untested("why", N), {"a@net": 0.91})
    assert (line.n_trials, line.n_complete, line.n_pruned, line.n_failed) == (4, 2, 1, 1)
    assert (line.tune, line.guard, line.test) == (0.9, 0.9, 0.91)
    assert line.params == {"number": 0}  # the earlier of two equals has the lower loss here
    assert line.study == "a@net"


def test_the_best_of_the_undecided_is_chosen_only_where_it_is_asked_for_and_never_what_is_harmful() -> None:
    results = [study("scratch", rank=0.7), study("good", rank=0.8), study("bad", rank=0.9)]
    wrong = {"scratch": 100, "good": 99, "bad": 200}
    finalists = {r.id: finalist(r, wrong[r.strategy]) for r in results}
    verdicts = judged(results, wrong)
    assert {name: verdict.decision for name, verdict in verdicts.items()} == {
        "good@net": "undecided",
        "bad@net": "harmful",
    }
    assert choose(finalists, verdicts) == "scratch"
    assert choose(finalists, verdicts, "best_tune") == "good@net"
    assert not certified("good@net", verdicts)
    assert certified("scratch", verdicts)
    modest = [study("scratch", rank=0.95), *results[1:]]
    assert choose({r.id: finalist(r, wrong[r.strategy]) for r in modest}, verdicts, "best_tune") == "scratch"


def test_what_was_accepted_wins_whatever_is_wished_for_the_undecided() -> None:
    results = [study("scratch", rank=0.7), study("good", rank=0.8), study("lucky", rank=0.9)]
    wrong = {"scratch": 100, "good": 50, "lucky": 99}
    finalists = {r.id: finalist(r, wrong[r.strategy]) for r in results}
    assert choose(finalists, judged(results, wrong), "best_tune") == "good@net"
