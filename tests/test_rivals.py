"""A source that is plainly worse than another is searched less; one that is as good never is."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from optuna.distributions import FloatDistribution

from autoxfer.engines import Engine, InlineExecutor
from autoxfer.records import Job, Outcome, Score, StudyResult, Trial, TrialState
from autoxfer.rivals import ALLOWANCE, LEAST, Rivals, errors_behind
from autoxfer.tuning import Journal, Study, tune

Floats = NDArray[np.float64]
N = 100


def mistakes(*wrong: int, n: int = N) -> Floats:
    """Losses of who errs on the first ``wrong`` examples, or from one number to another."""
    loss = np.zeros(n)
    loss[slice(*wrong)] = 1.0
    return loss


def study(
    strategy: str, source: str | None, right: float = 0.5, states: str = "ccccc", *, lower: bool = False
) -> StudyResult:
    words: dict[str, TrialState] = {"c": "complete", "p": "pruned", "f": "failed"}
    score = Score(right, -right if lower else right, 1 - right)
    trials = tuple(Trial(k, {}, Outcome(words[s], None if s == "f" else score)) for k, s in enumerate(states))
    return StudyResult(strategy if source is None else f"{strategy}@{source}", strategy, source, trials, 1.0)


def rivals(**losses: Floats) -> Rivals:
    """Make rivals whose losses are known by the source alone."""
    return Rivals(lambda study, best: losses[study.partition("@")[2].replace("+", "_")])


GOOD, BAD = mistakes(20), mistakes(10, 80)


def test_the_distance_is_the_paired_difference_in_standard_errors_with_two_examples_more() -> None:
    rng = np.random.default_rng(0)
    loss, leader = rng.normal(size=30), rng.normal(size=30)
    d = [*(loss - leader), max(abs(loss - leader)), -max(abs(loss - leader))]
    mean = sum(d) / 32
    naive = mean / math.sqrt(sum((x - mean) ** 2 for x in d) / 31 / 32)
    assert errors_behind(loss, leader) == pytest.approx(naive)
    assert errors_behind(leader, loss) == pytest.approx(-naive)
    assert errors_behind(loss, loss) == 0.0


def test_examples_of_one_group_count_once() -> None:
    apart = errors_behind(BAD, GOOD)
    groups = np.arange(N)
    assert errors_behind(BAD, GOOD, groups) == pytest.approx(apart)
    tripled = errors_behind(np.tile(BAD, 3), np.tile(GOOD, 3), np.tile(groups, 3))
    assert tripled == pytest.approx(apart)
    assert errors_behind(np.tile(BAD, 3), np.tile(GOOD, 3)) > 1.5 * apart


def test_a_handful_of_examples_that_agree_are_no_plain_difference() -> None:
    assert errors_behind(mistakes(6, n=10), mistakes(0, n=10)) < ALLOWANCE
    assert errors_behind(mistakes(9, n=20), mistakes(0, n=20)) > ALLOWANCE


def test_a_source_that_is_plainly_worse_gets_no_further_trials_and_the_reason_names_both() -> None:
    known = rivals(good=GOOD, bad=BAD)
    known.note(study("probe", "good", 0.8))
    reason = known.behind(study("probe", "bad", 0.3))
    assert reason.startswith("bad is plainly worse than good: after 5 trials its best is 0.3 on tune")
    assert "probe@good's 0.8" in reason


def test_it_has_its_chance_first_and_a_trial_that_failed_is_none() -> None:
    known = rivals(good=GOOD, bad=BAD)
    known.note(study("probe", "good", 0.8))
    assert known.behind(study("probe", "bad", 0.3, "c" * (LEAST - 1))) == ""
    assert known.behind(study("probe", "bad", 0.3, "ccpcffff")) == ""
    assert known.behind(study("probe", "bad", 0.3, "ffffff")) == ""
    assert known.behind(study("probe", "bad", 0.3, "pppppp")) == "", "nothing to compare"
    assert known.behind(study("probe", "bad", 0.3, "ccpcfp")) != ""


def test_a_source_that_is_as_good_is_hardly_ever_stopped() -> None:
    """Two equal sources, the leader the luckiest of 30 tries on the tune split, the other of five."""
    rng, stopped = np.random.default_rng(0), 0
    hard = rng.uniform(size=(400, N))  # what makes an example difficult is the same for both
    for shared in hard:
        tries = (0.7 * shared + 0.3 * rng.uniform(size=(35, N)) > 0.6).astype(np.float64)
        order = tries.mean(1)
        leader, other = tries[order[:30].argmin()], tries[30 + order[30:].argmin()]
        known = rivals(good=leader, bad=other)
        known.note(study("probe", "good", 1 - leader.mean()))
        stopped += known.behind(study("probe", "bad", 1 - other.mean())) != ""
    assert stopped <= 4


def test_only_studies_of_one_strategy_are_compared_and_scratch_never_is() -> None:
    known = rivals(good=GOOD, bad=BAD)
    known.note(study("scratch", None, 0.99))
    known.note(study("lora", "good", 0.8))
    assert known.behind(study("probe", "bad", 0.3)) == ""
    assert known.behind(study("scratch", None, 0.1)) == ""
    assert known.confined(None) == ""


def test_where_lower_is_better_the_lower_one_leads() -> None:
    known = rivals(good=GOOD, bad=BAD)
    known.note(study("probe", "bad", 3.0, lower=True))
    known.note(study("probe", "good", 1.0, lower=True))
    assert "its best is 3 on tune, probe@good's 1:" in known.behind(study("probe", "bad", 3.0, lower=True))
    assert known.behind(study("probe", "good", 1.0, lower=True)) == ""


def test_one_strategy_says_nothing_of_others_two_do() -> None:
    known = rivals(good=GOOD, bad=BAD, bad_good=GOOD)
    for strategy in ("probe", "lora"):
        known.note(study(strategy, "good", 0.8))
    known.note(study("probe", "bad", 0.3))
    assert known.confined("bad") == ""
    known.note(study("lora", "bad", 0.3))
    assert known.confined("bad") == (
        "bad was plainly worse than good in probe and than good in lora: only its default trials"
    )
    assert known.confined("good") == ""
    assert known.confined("bad+good") == "", "what takes both is judged by itself"


def test_whoever_leads_is_compared_with_whatever_was_finished_before() -> None:
    known = rivals(good=GOOD, bad=BAD)
    known.note(study("probe", "bad", 0.3))
    assert known.behind(study("probe", "good", 0.8)) == ""
    known.note(study("probe", "good", 0.8))
    assert known.confined("bad") == "", "the first had all its trials, and nobody to be held against"


SPACE = {"x": FloatDistribution(0.0, 1.0)}
ENGINE = Engine(InlineExecutor(), 1)


def behind(closed: tuple[Trial, ...]) -> str:
    known = rivals(good=GOOD, bad=BAD)
    known.note(study("probe", "good", 2.0))
    return known.behind(StudyResult("probe@bad", "probe", "bad", closed, 0.0))


def search(folder: Path, *, confined: str = "") -> Study:
    journal = Journal(folder / "journal.log")
    return Study(journal, "probe@bad", SPACE, [{"x": 0.5}], seed=0, n_trials=12, behind=behind, confined=confined)


def finish(study: Study, said: list[str] | None = None) -> list[tuple[int, float]]:
    def make(number: int, params: object, floors: object) -> Job:
        return Job(study.id, number, "probe", "bad", {"x": 0.0, **params}, 0)  # type: ignore[dict-item]

    def train(job: Job) -> Outcome:
        return Outcome("complete", Score(job.params["x"], job.params["x"], 0.0))

    warn = (lambda text: None) if said is None else said.append
    return [(trial.number, trial.params["x"]) for trial in tune(study, make, train, ENGINE, warn=warn)]


def test_a_study_that_is_plainly_worse_ends_and_says_why(tmp_path: Path) -> None:
    said: list[str] = []
    assert len(finish(search(tmp_path), said)) == LEAST
    assert said == [f"probe@bad: no further trials, {search(tmp_path).given_up()}"]
    assert "bad is plainly worse than good" in said[0]


def test_killed_anywhere_it_ends_where_it_would_have_ended(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = finish(search(tmp_path / "whole"))
    content = (tmp_path / "whole" / "journal.log").read_bytes()
    for cut in [k + 1 for k, byte in enumerate(content) if byte == ord("\n")][2:]:
        (tmp_path / "journal.log").write_bytes(content[:cut])
        assert finish(search(tmp_path)) == whole


def test_a_source_that_was_plainly_worse_elsewhere_has_its_defaults_alone(tmp_path: Path) -> None:
    said: list[str] = []
    assert finish(search(tmp_path, confined="bad was bad"), said) == [(0, 0.5)]
    assert said == ["probe@bad: no further trials, bad was bad"]
