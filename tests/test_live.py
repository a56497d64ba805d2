from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from autoxfer.events import Event, RunFinished, RunStarted, StageStarted, StudyStarted, TrialFinished, Warned
from autoxfer.metering import duration
from autoxfer.records import Outcome, Score, Trial, TrialState, Verdict
from autoxfer.report import Entry, Logged, RunRecord, Winner
from autoxfer.terminal.leaderboard import leaderboard, ranked, sentences, show, text, usage
from autoxfer.terminal.live import Lines, Live, Watcher, resume_command, watcher, window
from autoxfer.terminal.progress import Progress, StudyProgress, number

STUDIES = ("scratch", "linear_probe@even", "partial_transfer@resnet18.a1_in1k")
FOLDER = Path("runs/20260611-101500-3fa2")


class Clock:
    """A clock that is set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Screen(io.StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def started(seconds: float | None = None, n_trials: int | None = 4) -> RunStarted:
    return RunStarted(FOLDER.name, FOLDER, STUDIES, n_trials, seconds, "accuracy")


def finished(
    study: str, index: int, seconds: float, value: float = 0.9, state: TrialState = "complete"
) -> TrialFinished:
    score = Score(value, value, 1 - value)
    outcome = Outcome(state, None if state == "failed" else score, seconds=seconds)
    return TrialFinished(study, Trial(index, {}, outcome), None if state == "failed" else score)


def tell(watch: Watcher | Progress, *events: Event) -> None:
    for event in events:
        watch.note(event) if isinstance(watch, Progress) else watch.notify(event)


def entry(strategy: str, source: str | None, tune: float | None, guard: float | None, verdict: Verdict | None) -> Entry:
    status = "no_complete_trial" if tune is None else "complete"
    return Entry(strategy, source, status, 4, 4, 0, 0, 1.0, {}, tune, guard, guard, verdict)  # type: ignore[arg-type]


def verdict(decision: str, effect: float, reason: str) -> Verdict:
    ends = (effect - 0.04, effect + 0.04)
    return Verdict(decision, effect, *ends, 0.01, 0.05, "exact McNemar", 400, 44, 18, 0.05, reason)  # type: ignore[arg-type]


def record(direction: str = "maximize") -> RunRecord:
    entries = (
        entry("scratch", None, 0.871, 0.8625, None),
        entry(
            "linear_probe",
            "even",
            0.952,
            0.895,
            verdict("undecided", 0.0325, "fixed 31, broke 18, p = 0.071: undecided"),
        ),
        entry("residual", "even", 0.931, 0.8925, verdict("accepted", 0.065, "fixed 44, broke 18, p = 0.0021: better")),
        entry(
            "fine_tune", "resnet18.a1_in1k", None, None, verdict("untested", math.nan, "untested: no trial completed")
        ),
        entry(
            "partial_transfer",
            "resnet18.a1_in1k",
            0.82,
            0.801,
            verdict("harmful", -0.0615, "fixed 12, broke 37: worse"),
        ),
    )
    winner = Winner("residual", "even", {}, 0.931, 0.8925, 0.8925, certified=True)
    logged = Logged("sqlite:////my runs/mlflow.db", "8f2c1", "models:/m-1", "digits", "3")
    return RunRecord(FOLDER.name, {"metric": "accuracy", "direction": direction}, winner, entries, logged, {})


def drawn(width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(leaderboard(record(), width))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_the_time_left_follows_each_studys_own_trials() -> None:
    progress = Progress(Clock())
    tell(progress, started(), StageStarted("search"))
    assert progress.left == ""
    tell(progress, StudyStarted("scratch"), finished("scratch", 0, 10.0))
    assert progress.left == "at least 30 s left"  # nothing is known of the others
    tell(progress, *(finished("scratch", index, 10.0) for index in (1, 2, 3)))
    assert progress.left == ""
    tell(progress, StudyStarted(STUDIES[1]), finished(STUDIES[1], 0, 2.0))
    assert progress.left == "at least 6 s left"
    tell(progress, StudyStarted(STUDIES[2]))  # the one before ended early
    assert progress.left == ""
    tell(progress, finished(STUDIES[2], 0, 7.0))
    assert progress.left == "about 21 s left"
    tell(progress, StageStarted("guard"))
    assert progress.left == ""


def test_a_long_study_says_nothing_of_one_that_is_solved() -> None:
    stream = Screen(terminal=False)
    watch = Lines(stream, Progress(Clock()))
    tell(watch, replace(started(n_trials=5), studies=STUDIES[:2]), StageStarted("search"), StudyStarted("scratch"))
    tell(watch, *(finished("scratch", index, 801 / 5) for index in range(5)), StudyStarted(STUDIES[1]))
    assert stream.getvalue().splitlines()[-1].endswith("scratch: 5/5 trials, best 0.900 on tune, 13 min 21 s")


def test_what_is_known_of_one_fold_is_expected_of_the_next() -> None:
    progress, names = Progress(Clock()), tuple(f"fold {number}/2 {name}" for number in (1, 2) for name in STUDIES[:2])
    tell(progress, replace(started(), studies=(*names, *STUDIES[:2])), StageStarted("folds"), StudyStarted(names[0]))
    tell(progress, *(finished(names[0], index, 10.0) for index in range(4)), StudyStarted(names[1]))
    assert progress.left == "at least 1 min 20 s left"  # two searches by scratch
    tell(progress, finished(names[1], 0, 1.0))
    assert progress.left == "about 1 min 31 s left"


def test_the_time_left_respects_the_budget_in_seconds() -> None:
    progress = Progress(Clock())
    tell(progress, started(seconds=30.0), StageStarted("search"), StudyStarted("scratch"), finished("scratch", 0, 6.0))
    assert progress.left == "at least 4 s left"
    progress = Progress(Clock())
    tell(progress, started(seconds=30.0, n_trials=None), StudyStarted("scratch"), finished("scratch", 0, 6.0))
    assert progress.left == "about 24 s left"  # 4 + 10 + 10: trials go on until the time is over


def test_trials_of_an_earlier_sitting_count() -> None:
    progress = Progress(Clock())
    tell(progress, started(), StudyStarted("scratch"), finished("scratch", 2, 10.0))
    assert progress.studies["scratch"].trials == "3/4"


def test_lines_tell_stages_studies_and_warnings_and_little_else() -> None:
    clock, stream = Clock(), Screen(terminal=False)
    watch = Lines(stream, Progress(clock))
    tell(watch, started(), Warned("class 8 is rare"), StageStarted("search"), StudyStarted("scratch"))
    tell(watch, finished("scratch", 0, 1.0, 0.8), finished("scratch", 1, 1.0, 0.9))
    tell(watch, StudyStarted(STUDIES[1]), finished(STUDIES[1], 0, 1.0, state="failed"), StageStarted("guard"))
    assert [line.partition("] ")[2] for line in stream.getvalue().splitlines()] == [
        "run 20260611-101500-3fa2: accuracy, 3 studies of 4 trials",
        "warning: class 8 is rare",
        "searching",
        "scratch: 2/4 trials, best 0.900 on tune, 2 s",
        "linear_probe@even: 1/4 trials, 1 failed, no score, 1 s",
        "asking the guard",
    ]


def test_lines_give_a_sign_of_life_every_ten_seconds() -> None:
    clock, stream = Clock(), Screen(terminal=False)
    watch = Lines(stream, Progress(clock))
    tell(watch, started(n_trials=100), StageStarted("search"), StudyStarted("scratch"))
    quiet = len(stream.getvalue().splitlines())
    for index in range(60):
        clock.now += 1.0
        tell(watch, finished("scratch", index, 1.0))
    beats = stream.getvalue().splitlines()[quiet:]
    assert len(beats) == 6
    assert beats[0] == "[10 s] scratch: 10/100 trials, best 0.900 on tune so far; at least 1 min 30 s left"


@pytest.mark.parametrize("width", [80, 120])
def test_the_live_view_fits_the_terminal_and_shows_every_study(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, height=24, force_terminal=True, color_system=None)
    watch = Live(console, Progress(Clock()))
    console.print(watch.render())
    assert "reading the data" in console.file.getvalue()  # type: ignore[attr-defined]
    tell(watch, started(), Warned("class 8 is rare"), StageStarted("search"), StudyStarted("scratch"))
    tell(watch, *(finished("scratch", index, 20.0) for index in range(4)))
    tell(watch, StudyStarted(STUDIES[1]), finished(STUDIES[1], 0, 600.0, state="failed"))
    console.file = io.StringIO()
    console.print(watch.render())
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert all(any(study in line for line in lines) for study in STUDIES)
    page = "\n".join(lines)
    for part in ("4/4", "1/4", "1 failed", "0.900", "1 min 20 s", "class 8 is rare", "at least 30 min 00 s left"):
        assert part in page


def test_many_studies_are_shown_around_the_running_one() -> None:
    studies = [StudyProgress(str(index), 4, "done" if index < 20 else "waiting") for index in range(40)]
    shown, before, after = window(studies, 10)
    assert ([study.name for study in shown], before, after) == ([str(index) for index in range(15, 25)], 15, 15)
    assert window(studies[:5], 10) == (studies[:5], 0, 0)


def test_the_view_suits_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    assert isinstance(watcher(Screen(terminal=True)), Live)
    assert isinstance(watcher(Screen(terminal=False)), Lines)
    assert type(watcher(Screen(terminal=True), quiet=True)) is Watcher
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(watcher(Screen(terminal=True)), Lines)


def test_a_vanished_terminal_does_not_reach_the_run() -> None:
    stream = Screen(terminal=False)
    watch = Lines(stream, Progress(Clock()))
    stream.close()
    tell(watch, started(), StageStarted("search"))
    assert watch.progress.stage == "search"


def test_warnings_are_kept_once_for_the_end() -> None:
    watch = Watcher(Progress(Clock()))
    written = RunRecord("x", {"warnings": ["a", "b"]}, record().winner, (), Logged(), {})
    tell(watch, Warned("a"), Warned("a"), RunFinished(written, FOLDER))
    assert watch.progress.warnings == ["a", "b"]


def test_the_winner_stands_first_then_the_guard_decides() -> None:
    order = ["residual", "linear_probe", "scratch", "partial_transfer", "fine_tune"]
    assert [item.strategy for item in ranked(record())] == order
    order = ["residual", "partial_transfer", "scratch", "linear_probe", "fine_tune"]
    assert [item.strategy for item in ranked(record("minimize"))] == order


def test_the_leaderboard_fits_eighty_columns_without_cutting_a_verdict() -> None:
    lines = drawn(80)
    assert max(len(line.rstrip()) for line in lines) <= 80
    for row in ("*  residual", "partial_transfer  resnet18.a1_in1k  0.820  0.801  0.801  -0.061  harmful", "baseline"):
        assert any(row in line for line in lines)


def test_a_wide_terminal_shows_the_interval() -> None:
    assert any("+0.065  [+0.025, +0.105]  accepted" in line for line in drawn(120))
    assert not any("interval" in line for line in drawn(80))


def test_plain_text_cuts_nothing_off() -> None:
    lines = text(record()).splitlines()
    assert " ".join(lines[1].split()) == "* residual even 0.931 0.892 0.892 +0.065 [+0.025, +0.105] accepted"
    assert "-" in lines[-1]
    assert "nan" not in text(record())


@pytest.mark.parametrize(
    ("metric", "scratch", "transfer", "effect", "heading"),
    [
        ("rmse", 3.0, 2.0, 5.0, "gain (mse)"),
        ("mse", 9.0, 4.0, 5.0, "gain"),
        ("r2", 0.10, 0.50, 5.0, "gain (mse)"),
        ("mae", 9.0, 4.0, 5.0, "gain"),
        ("log_loss", 9.0, 4.0, 5.0, "gain"),
    ],
)
def test_a_gain_in_losses_is_a_share_of_scratchs(
    metric: str, scratch: float, transfer: float, effect: float, heading: str
) -> None:
    found = record()
    like = next(entry for entry in found.entries if entry.study == "residual@even")
    assert like.verdict is not None
    verdict = replace(like.verdict, effect=effect, ci_low=-effect / 2, ci_high=2.5 * effect)
    entries = (
        replace(like, guard=transfer, verdict=verdict),
        replace(next(entry for entry in found.entries if entry.verdict is None), guard=scratch),
    )
    shown = text(replace(found, task={**found.task, "metric": metric}, entries=entries)).splitlines()
    assert re.split(r"  +", shown[0])[-3:] == [heading, "interval", "verdict"]
    share = 100 * (1 - (1 - 0.5) / (1 - 0.1)) if metric == "r2" else 100 * 5 / 9
    assert f"+{share:.1f}% [-{share / 2:.1f}%, +{2.5 * share:.0f}%]" in " ".join(shown[1].split())


def test_a_gain_in_points_stays_a_number() -> None:
    assert "%" not in text(record())


def test_every_verdict_gets_its_sentence_and_the_winner_the_last_word() -> None:
    said = sentences(record())
    assert said[0] == "residual@even: fixed 44, broke 18, p = 0.0021: better"
    assert said[-1] == "winner: residual@even, accuracy 0.892 on guard, 0.892 on test"
    assert len(said) == 5


def test_the_commands_can_be_pasted() -> None:
    lines = usage(record(), Path("/my runs/a"))
    assert lines[1] == "predict: autoxfer predict 20260611-101500-3fa2 FILE --runs '/my runs'"
    serve = "mlflow models serve -m models:/digits/3 --env-manager local"
    assert lines[-1] == f"serve:   MLFLOW_TRACKING_URI='sqlite:////my runs/mlflow.db' {serve}"
    assert resume_command(started()) == "autoxfer run --resume 20260611-101500-3fa2"


@pytest.mark.parametrize("terminal", [True, False])
def test_everything_is_said_at_the_end(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    stream = io.StringIO()
    show(record(), FOLDER, ["class 8 is rare"], Console(file=stream, width=80, force_terminal=terminal))
    page = stream.getvalue()
    for part in ("accepted", "winner: residual@even", "warning: class 8 is rare", "--env-manager local"):
        assert part in page
    assert "\x1b[3" not in page  # no colour where none is wanted


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3900, "1 h 05 min")]
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "-"), (math.nan, "-"), (0.9, "0.900"), (0.0004, "0.0004"), (123.456, "123"), (0.0, "0.000")],
)
def test_numbers_are_short(value: float | None, said: str) -> None:
    assert number(value) == said
