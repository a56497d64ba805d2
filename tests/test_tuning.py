from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from autoxfer.engines import Engine, InlineExecutor
from autoxfer.errors import AutoxferError, InputError, PluginError
from autoxfer.records import Job, Outcome, Score, StudyResult, Trial
from autoxfer.tuning import Baseline, Journal, Study, attempt, bars, beaten, floors, trials_table, tune
from autoxfer.tuning.pruning import MIN_COMPLETED
from autoxfer.tuning.study import MIN_FAILED

SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
    "steps": IntDistribution(50, 300, log=True),
    "mode": CategoricalDistribution(["frozen", "trained"]),
}
DEFAULTS = [{"lr": 1e-3, "steps": 100, "mode": "frozen"}, {"lr": 1e-2, "steps": 100, "mode": "trained"}]
INLINE = Engine(InlineExecutor(), 1)


def make_job(number: int, params: Mapping[str, Any], floors: tuple[tuple[float, float], ...]) -> Job:
    return Job("probe@even", number, "probe", "even", params, seed=number, floors=floors)


def train(job: Job) -> Outcome:
    """A cheap stand-in for training: learns, obeys the floors, and now and then fails."""
    if job.number % 7 == 5:
        raise FloatingPointError("the loss is NaN")
    quality = 0.9 - abs(math.log10(job.params["lr"]) + 2) / 4 + 0.1 * (job.params["mode"] == "trained")
    curve: list[tuple[float, float]] = []
    for k in range(5):
        curve.append((k / 4, quality * (1 - math.exp(-k * job.params["steps"] / 100))))
        if any(share <= k / 4 and curve[-1][1] < rank for share, rank in job.floors):
            return Outcome("pruned", Score(curve[-1][1], curve[-1][1], 1.0), tuple(curve), steps=k)
    return Outcome("complete", Score(quality, quality, 1 - quality), tuple(curve), steps=4)


def open_study(path: Path, *, id: str = "probe@even", seed: int = 0, n_trials: int | None = 12) -> Study:
    return Study(Journal(path / "journal.log"), id, SPACE, DEFAULTS, seed=seed, n_trials=n_trials)


def facts(trials: tuple[Trial, ...]) -> list[tuple[Any, ...]]:
    """All of a study but the clock."""
    return [(t.number, dict(t.params), t.outcome.state, t.outcome.score, t.outcome.curve) for t in trials]


def outcome(state: Any, *ranks: float) -> Outcome:
    curve = tuple((k / (4 if state == "pruned" else max(1, len(ranks) - 1)), rank) for k, rank in enumerate(ranks))
    return Outcome(state, None if state == "failed" else Score(ranks[-1], max(ranks), 0.0), curve)


def test_the_defaults_come_first_clipped_and_once(tmp_path: Path) -> None:
    defaults = [{"lr": 1.0, "steps": 100, "mode": "melted"}, {"lr": 0.5, "steps": 100, "mode": "frozen"}]
    study = Study(Journal(tmp_path / "journal.log"), "a", SPACE, defaults, seed=0, n_trials=3)
    trials = tune(study, make_job, train, INLINE)
    assert dict(trials[0].params) == {"lr": 0.1, "steps": 100, "mode": "frozen"}
    assert len({json.dumps(dict(trial.params)) for trial in trials}) == 3


def test_every_kind_of_trial_counts_and_a_failure_is_not_pruned(tmp_path: Path) -> None:
    trials = tune(open_study(tmp_path, n_trials=14), make_job, train, INLINE)
    states = [trial.outcome.state for trial in trials]
    assert [number for number, state in enumerate(states) if state == "failed"] == [5, 12]
    assert states.count("pruned") >= 1
    assert len(trials) == 14
    assert trials[5].outcome.reason.startswith("FloatingPointError: the loss is NaN (test_tuning.py:")
    assert trials[5].outcome.score is None


def test_a_finished_study_is_opened_and_nothing_is_run_again(tmp_path: Path) -> None:
    first = tune(open_study(tmp_path), make_job, train, INLINE)

    def never(job: Job) -> Outcome:
        raise AssertionError

    assert tune(open_study(tmp_path), make_job, never, INLINE) == first
    assert len(tune(open_study(tmp_path, n_trials=15), make_job, train, INLINE)) == 15


def test_other_studies_in_the_journal_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    (tmp_path / "among").mkdir()
    alone = tune(open_study(tmp_path / "alone"), make_job, train, INLINE)
    other = tune(open_study(tmp_path / "among", id="lora@even"), make_job, train, INLINE)
    among = tune(open_study(tmp_path / "among"), make_job, train, INLINE)
    assert facts(alone) == facts(among) != facts(other)
    assert facts(tune(open_study(tmp_path / "among", id="b", seed=1), make_job, train, INLINE)) != facts(among)


def test_a_finite_space_ends_the_study(tmp_path: Path) -> None:
    space = {"mode": SPACE["mode"], "k": IntDistribution(1, 2)}
    study = Study(Journal(tmp_path / "journal.log"), "a", space, [{"mode": "trained", "k": 9}], seed=0, n_trials=None)
    trials = tune(study, make_job, lambda job: outcome("complete", 0.5), Engine(InlineExecutor(), 3))
    assert dict(trials[0].params) == {"mode": "trained", "k": 2}
    assert len(trials) == 4 == len({tuple(trial.params.values()) for trial in trials})
    empty = Study(Journal(tmp_path / "journal.log"), "b", {}, [{}], seed=0, n_trials=10)
    assert len(tune(empty, make_job, lambda job: outcome("complete", 0.5), INLINE)) == 1


def test_what_is_asked_together_runs_together_and_is_told_in_order(tmp_path: Path) -> None:
    meeting, told = threading.Barrier(3, timeout=5), []

    def meet(job: Job) -> Outcome:
        meeting.wait()
        time.sleep(0.01 * (3 - job.number % 3))
        return train(job)

    with ThreadPoolExecutor(3) as pool:
        trials = tune(
            open_study(tmp_path, n_trials=6),
            make_job,
            meet,
            Engine(pool, 3),
            on_trial=lambda trial, best: told.append((trial.number, best)),
        )
    assert [number for number, _ in told] == list(range(6))
    assert told[-1][1] == max((t.outcome.score for t in trials if t.outcome.score), key=lambda score: score.rank)


def test_the_deadline_stops_new_trials_but_not_the_baselines_first(tmp_path: Path) -> None:
    past = time.monotonic() - 1
    assert tune(open_study(tmp_path), make_job, train, INLINE, deadline=past) == ()
    assert len(tune(open_study(tmp_path), make_job, train, INLINE, deadline=past, outside_cap=2)) == 2
    assert (
        len(tune(open_study(tmp_path), make_job, train, Engine(InlineExecutor(), 4), deadline=past, outside_cap=3)) == 3
    )
    assert len(tune(open_study(tmp_path), make_job, train, INLINE, deadline=time.monotonic() + 60)) == 12


def test_a_study_that_only_fails_is_given_up_with_its_reason(tmp_path: Path) -> None:
    said: list[str] = []

    def out_of_memory(job: Job) -> Outcome:
        raise MemoryError(f"tried to allocate {job.number}.5 GiB")

    for _ in range(2):  # again after a resume
        trials = tune(open_study(tmp_path), make_job, out_of_memory, INLINE, warn=said.append)
        assert len(trials) == MIN_FAILED
    assert "probe@even: given up, the first 5 trials failed alike: MemoryError: tried to allocate" in said[0]


def test_different_failures_do_not_end_a_study(tmp_path: Path) -> None:
    def fail(job: Job) -> Outcome:
        raise RuntimeError("ab"[job.number % 2])

    assert len(tune(open_study(tmp_path), make_job, fail, INLINE)) == 12


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(), InputError("a", "b", "c"), OSError(errno.ENOSPC, "full")]
)
def test_what_should_stop_the_run_does_and_the_trial_is_not_lost(tmp_path: Path, error: BaseException) -> None:
    def fail(job: Job) -> Outcome:
        if job.number == 3:
            raise error
        return train(job)

    with pytest.raises(type(error)):
        tune(open_study(tmp_path), make_job, fail, INLINE)
    resumed = tune(open_study(tmp_path), make_job, train, INLINE)
    (tmp_path / "whole").mkdir()
    assert facts(resumed) == facts(tune(open_study(tmp_path / "whole"), make_job, train, INLINE))


@pytest.mark.parametrize(
    "error", [MemoryError(), PluginError("bad"), OSError("odd"), AutoxferError("x"), AssertionError()]
)
def test_anything_else_fails_its_own_trial_only(error: Exception) -> None:
    def fail(job: Job) -> Outcome:
        raise error

    found = attempt(fail, make_job(0, {}, ()))
    assert found.state == "failed"
    assert found.reason.startswith(type(error).__name__)


@pytest.mark.parametrize("score", [None, Score(math.nan, math.nan, 0.0), Score(math.inf, -math.inf, 0.0)])
def test_a_trial_without_a_finite_score_has_failed(score: Score | None) -> None:
    found = attempt(lambda job: Outcome("complete", score), make_job(0, {}, ()))
    assert (found.state, found.score) == ("failed", None)
    assert found.reason.startswith("training ended with")


# --- pruning ---


def test_nothing_is_pruned_before_five_trials_completed() -> None:
    few = [Trial(k, {}, outcome("complete", 0.1, 0.2, 0.3)) for k in range(MIN_COMPLETED - 1)]
    few += [Trial(k, {}, outcome("pruned", 0.1, 0.2, 0.3)) for k in range(9)]
    assert floors(few) == ()
    assert floors([*few, Trial(9, {}, outcome("complete", 0.1, 0.2, 0.3))]) != ()


def test_floors_are_the_worst_and_the_median_of_what_was_reached() -> None:
    closed = [Trial(k, {}, outcome("complete", k / 10, 0.0, k / 5, 0.0, k / 2)) for k in range(5)]
    assert floors(closed) == ((0.3, 0.0), (0.5, 0.4), (0.75, 0.4))
    closed += [Trial(5, {}, outcome("failed")), Trial(6, {}, outcome("failed"))]
    assert floors(closed) == ((0.3, 0.0), (0.5, 0.4), (0.75, 0.4))
    closed += [Trial(k, {}, outcome("pruned", -1.0, -1.0, -1.0)) for k in (7, 8)]  # stopped at .5
    assert floors(closed) == ((0.3, -1.0), (0.5, 0.2), (0.75, 0.4))


def test_trials_without_a_curve_set_no_floor() -> None:
    closed_form = [Trial(k, {}, Outcome("complete", Score(0.5, 0.5, 0.0))) for k in range(9)]
    cut_short = [Trial(k, {}, Outcome("complete", Score(0.5, 0.5, 0.0), ((0.0, 0.1), (0.4, 0.5)))) for k in range(9)]
    assert floors(closed_form) == ()
    assert floors(cut_short) == ((0.3, 0.1),)


def test_a_diverged_curve_does_not_poison_the_floors() -> None:
    closed = [Trial(k, {}, outcome("complete", 0.0, math.nan, 0.1 * k)) for k in range(6)]
    assert all(not math.isnan(rank) for _, rank in floors(closed))


def test_the_defaults_are_never_pruned(tmp_path: Path) -> None:
    defaults = [{"lr": 10 ** -(1 + k / 4), "steps": 100, "mode": "frozen"} for k in range(8)]
    study = Study(Journal(tmp_path / "journal.log"), "a", SPACE, defaults, seed=0, n_trials=9)
    told: list[Job] = []

    def note(job: Job) -> Outcome:
        told.append(job)
        return outcome("complete", 0.1, 0.2, 0.3, 0.4, 0.5)

    tune(study, make_job, note, INLINE)
    assert [len(job.floors) for job in told] == [0] * 8 + [3]


def test_pruning_saves_steps_and_rarely_loses_the_best() -> None:
    def simulate(seed: int) -> tuple[float, bool]:
        rng, used, everything = np.random.default_rng(seed), 0.0, 0.0
        closed: list[Trial] = []
        ends: dict[int, float] = {}
        shares = np.arange(13) / 12
        for number in range(20):
            quality, speed, steps = rng.normal(0.7, 0.08), np.exp(rng.normal(1.2, 0.7)), np.exp(rng.uniform(4, 5.7))
            curve = quality * (1 - np.exp(-speed * shares)) / (1 - np.exp(-speed)) + rng.normal(0, 0.02, 13)
            ranks = np.round(np.maximum.accumulate(curve) * 50) / 50  # a tune split of 50
            bars = floors(closed) if number else ()
            n = next((k for k, s in enumerate(shares) if any(s >= at and ranks[k] < bar for at, bar in bars)), 12)
            points = tuple(zip(shares[: n + 1].tolist(), ranks[: n + 1].tolist(), strict=True))
            state, score = ("complete", Score(ranks[-1], ranks[-1], 0.0)) if n == 12 else ("pruned", None)
            closed.append(Trial(number, {}, Outcome(state, score, points)))  # type: ignore[arg-type]
            used, everything, ends[number] = used + steps * shares[n], everything + steps, ranks[-1]
        kept = max(ends[trial.number] for trial in closed if trial.outcome.state == "complete")
        return used / everything, kept < max(ends.values())

    studies = [simulate(seed) for seed in range(60)]
    assert np.mean([used for used, _ in studies]) < 0.85
    assert np.mean([lost for _, lost in studies]) < 0.15


# --- kill and resume ---


def search(folder: Path, slots: int) -> tuple[Trial, ...]:
    return tune(open_study(folder), make_job, train, Engine(InlineExecutor(), slots))


def run_killed(target: Callable[[], object], path: Path, size: int) -> bool:
    """Run in another process and kill it without warning once the journal has reached ``size``; whether it lived."""
    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    while process.is_alive() and (not path.exists() or path.stat().st_size < size):
        pass
    assert process.pid is not None
    alive = process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return alive


@pytest.mark.parametrize("slots", [1, 3])
def test_a_search_killed_seven_times_ends_where_the_uninterrupted_one_does(tmp_path: Path, slots: int) -> None:
    (tmp_path / "whole").mkdir()
    whole = search(tmp_path / "whole", slots)
    full, path = (tmp_path / "whole" / "journal.log").stat().st_size, tmp_path / "journal.log"
    rng, n_killed = random.Random(slots), 0
    for size in sorted(rng.sample(range(full * 9 // 10), 7)):
        n_killed += run_killed(lambda: search(tmp_path, slots), path, size)
        finished = facts(open_study(tmp_path).trials())
        assert finished == facts(whole)[: len(finished)]
    assert n_killed >= 5
    assert facts(search(tmp_path, slots)) == facts(whole)


@pytest.mark.parametrize("slots", [1, 3])
def test_a_journal_torn_anywhere_is_completed_to_the_same_study(tmp_path: Path, slots: int) -> None:
    (tmp_path / "whole").mkdir()
    whole = facts(search(tmp_path / "whole", slots))
    content, rng = (tmp_path / "whole" / "journal.log").read_bytes(), random.Random(slots)
    for cut in rng.sample(range(len(content)), 12):
        (tmp_path / "journal.log").write_bytes(content[:cut])
        assert facts(search(tmp_path, slots)) == whole


# --- the table ---


def test_the_table_has_one_plain_row_per_trial(tmp_path: Path) -> None:
    trials = tune(open_study(tmp_path, n_trials=6), make_job, train, INLINE)
    rows = trials_table([StudyResult("probe@even", "probe", "even", trials, 1.0)])
    assert [row["number"] for row in rows] == list(range(6))
    assert json.loads(rows[0]["params"]) == DEFAULTS[0]
    assert rows[5]["state"] == "failed"
    assert rows[5]["value"] is None
    assert all(isinstance(value, str | int | float | None) for row in rows for value in row.values())


# --- against the baseline ---


def baseline(*ranks: float, error: float = 0.05) -> Baseline:
    found = outcome("complete", *ranks)
    assert found.score is not None
    return Baseline(Score(max(ranks), max(ranks), 0.0), found.curve, error)


def done(*curves: tuple[float, ...]) -> list[Trial]:
    return [Trial(k, {}, outcome("complete", *curve)) for k, curve in enumerate(curves)]


STRONG = baseline(0.1, 0.6, 0.8, 0.8, 0.9)
WEAK = (0.1, 0.2, 0.3, 0.35, 0.4)


def test_a_bar_lies_two_errors_below_what_the_baseline_had_by_then() -> None:
    found = bars(done((0.1, 0.7, 0.9, 0.9, 0.9)), STRONG)
    assert [(share, theirs) for share, _, theirs in found] == [(0.5, 0.8), (0.75, 0.8)]
    assert [bar for _, bar, _ in found] == pytest.approx([0.7, 0.7])


def test_what_leads_its_own_study_is_never_stopped() -> None:
    assert [bar for _, bar, _ in bars(done(WEAK), STRONG)] == [0.3, 0.35]
    behind = [*done(WEAK), Trial(1, {}, outcome("pruned", 0.0, 0.1, 0.2)), Trial(2, {}, outcome("failed"))]
    assert [bar for _, bar, _ in bars(behind, STRONG)] == [0.3, 0.35]


def test_there_is_no_bar_for_the_first_trial_nor_against_a_solved_or_unmeasured_baseline() -> None:
    assert bars([], STRONG) == ()
    assert bars([Trial(0, {}, Outcome("complete", Score(0.5, 0.5, 0.0), ((1.0, 0.5),)))], STRONG) == ()
    solved = Baseline(Score(0.9, 0.9, 0.0), ((1.0, 0.9),), 0.01)
    assert bars(done(WEAK), solved) == ()
    assert bars(done(WEAK), baseline(0.1, 0.6, 0.8, 0.8, 0.9, error=math.inf)) == ()
    late = Baseline(Score(0.9, 0.9, 0.0), ((0.0, 0.2), (0.75, 0.8), (1.0, 0.9)), 0.01)
    assert [share for share, _, _ in bars(done(WEAK), late)] == [0.75]


def test_a_study_is_beaten_where_five_trials_lie_three_errors_behind() -> None:
    assert beaten(done(*[WEAK] * MIN_COMPLETED), STRONG) == (
        "after 5 completed trials its best is 0.4 on tune, scratch's 0.9: more than 3 standard errors (0.05) behind"
    )
    assert beaten(done(*[WEAK] * (MIN_COMPLETED - 1)), STRONG) == ""
    near = (*WEAK[:-1], 0.76)
    assert beaten(done(*[WEAK] * 9, near), STRONG) == ""
    cut_short = [*done(*[WEAK] * 5), Trial(5, {}, outcome("pruned", 0.1, 0.8))]
    assert beaten(cut_short, STRONG) == "", "what was cut short may have been the best"
    assert beaten([Trial(k, {}, outcome("pruned", 0.1)) for k in range(9)], STRONG) == ""


def test_lower_is_better_is_told_in_the_metrics_own_units() -> None:
    trials = [Trial(k, {}, Outcome("complete", Score(2.0, -2.0, 4.0))) for k in range(5)]
    assert "its best is 2 on tune, scratch's 0.5" in beaten(trials, Baseline(Score(0.5, -0.5, 0.25), (), 0.1))


def against(path: Path, strength: float, n_trials: int = 12) -> Study:
    rival = Baseline(Score(strength, strength, 0.0), tuple((k / 4, strength * k / 4) for k in range(5)), 0.02)
    return Study(Journal(path / "journal.log"), "a@b", SPACE, DEFAULTS, seed=0, n_trials=n_trials, baseline=rival)


def test_a_study_that_cannot_win_is_given_no_further_trials_and_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    trials = tune(against(tmp_path, 5.0), make_job, train, INLINE, warn=said.append)
    completed = [trial for trial in trials if trial.outcome.state == "complete"]
    assert len(completed) == MIN_COMPLETED
    assert said == [f"a@b: no further trials, {against(tmp_path, 5.0).given_up()}"]
    assert "more than 3 standard errors" in said[0]
    assert against(tmp_path, 5.0, n_trials=len(trials)).given_up() == "", "a spent budget is no giving up"


def test_a_study_that_may_win_is_left_alone(tmp_path: Path) -> None:
    assert len(tune(against(tmp_path, 0.5), make_job, train, INLINE)) == 12
    assert against(tmp_path, 0.5, 20).given_up() == ""


def test_a_job_carries_its_bars_and_a_resumed_one_the_same(tmp_path: Path) -> None:
    jobs: list[Job] = []

    def note(job: Job) -> Outcome:
        jobs.append(job)
        if job.number == 4 and len(jobs) == 5:
            raise KeyboardInterrupt
        return outcome("complete", *WEAK)

    study = Study(Journal(tmp_path / "journal.log"), "a@b", SPACE, DEFAULTS, seed=0, n_trials=5, baseline=STRONG)
    with pytest.raises(KeyboardInterrupt):
        tune(study, make_job, note, INLINE)
    study = Study(Journal(tmp_path / "journal.log"), "a@b", SPACE, DEFAULTS, seed=0, n_trials=5)
    tune(study, make_job, note, INLINE)
    assert [job.bars for job in jobs[:2]] == [(), ()], "the first trials run to their end"
    assert jobs[4].bars == jobs[5].bars == ((0.5, 0.3, 0.8), (0.75, 0.35, 0.8))


@pytest.mark.parametrize("slots", [1, 3])
def test_a_study_that_is_given_up_is_resumed_to_the_same_end(tmp_path: Path, slots: int) -> None:
    engine = Engine(InlineExecutor(), slots)
    (tmp_path / "whole").mkdir()
    whole = facts(tune(against(tmp_path / "whole", 5.0), make_job, train, engine))
    assert len(whole) < 12
    content = (tmp_path / "whole" / "journal.log").read_bytes()
    lines = [k + 1 for k, byte in enumerate(content) if byte == ord("\n")]
    for cut in lines[2:]:
        (tmp_path / "journal.log").write_bytes(content[:cut])
        assert facts(tune(against(tmp_path, 5.0), make_job, train, engine)) == whole
