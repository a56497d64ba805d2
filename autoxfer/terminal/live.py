"""The terminal's view of a run: a live table, plain lines where stderr is no terminal, or silence."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO, final

from autoxfer.events import Event, RunStarted, StageStarted, TrialFinished, Warned
from autoxfer.metering import duration
from autoxfer.terminal.progress import STAGES, Progress, StudyProgress, number

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

MARKS = {"waiting": ("·", "dim"), "done": ("✓", "green")}
STYLES = {"waiting": "dim", "running": "bold", "done": ""}
HEARTBEAT = 10.0  # seconds between plain lines at most


class Watcher:
    """An observer that keeps count and shows nothing. A view's own trouble never reaches the run."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.progress = progress or Progress()

    def notify(self, event: Event) -> None:
        """Take note of one event."""
        ended = self.progress.note(event)
        with contextlib.suppress(OSError, ValueError):  # the terminal is gone, or the stream is closed
            self.show(event, ended)

    def show(self, event: Event, ended: Sequence[StudyProgress]) -> None:
        """Show it, in a view that does."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""


@final
class Lines(Watcher):
    """One line per stage and study, and a sign of life in between."""

    def __init__(self, stream: TextIO, progress: Progress | None = None) -> None:
        super().__init__(progress)
        self._stream = stream
        self._last = self.progress.clock()

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError, ValueError):
            self._write(STAGES[self.progress.stage])
        return self

    def show(self, event: Event, ended: Sequence[StudyProgress]) -> None:
        """Write what is new."""
        for study in ended:
            self._write(f"{_summary(study)}, {duration(study.seconds)}{self._left()}")
        if isinstance(event, RunStarted):
            self._write(heading(event))
        elif isinstance(event, StageStarted):
            self._write(STAGES.get(event.name, event.name))
        elif isinstance(event, Warned):
            self._write(f"warning: {event.text}")
        elif isinstance(event, TrialFinished) and self.progress.clock() - self._last >= HEARTBEAT:
            study = self.progress.studies[event.study]
            self._write(f"{_summary(study)} so far{self._left()}")

    def _left(self) -> str:
        left = self.progress.left
        return f"; {left}" if left else ""

    def _write(self, text: str) -> None:
        self._last = self.progress.clock()
        print(f"[{duration(self.progress.elapsed)}] {text}", file=self._stream, flush=True)


@final
class Live(Watcher):
    """A table that stays in place and goes away at the end."""

    def __init__(self, console: Console, progress: Progress | None = None) -> None:
        from rich.live import Live as RichLive  # noqa: PLC0415 - no terminal, no rich
        from rich.spinner import Spinner  # noqa: PLC0415

        super().__init__(progress)
        self._console = console
        self._spinner = Spinner("dots" if console.encoding.startswith("utf") else "line", style="cyan")
        self._live = RichLive(get_renderable=self.render, console=console, refresh_per_second=5, transient=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop drawing; warnings that no leaderboard will repeat are shown now."""
        with contextlib.suppress(OSError, ValueError):
            self._live.stop()
            for text in self.progress.warnings if error else ():
                self._console.print(f"warning: {text}", style="yellow", markup=False, highlight=False)

    def render(self) -> RenderableType:
        """Draw everything: what runs, how far it is, one line per study."""
        from rich.console import Group  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        progress = self.progress
        parts: list[RenderableType] = []
        if progress.run is not None:
            parts.append(Text(heading(progress.run), style="bold", no_wrap=True, overflow="ellipsis"))
        stage = Text(f"{STAGES.get(progress.stage, progress.stage)}, {duration(progress.elapsed)} so far")
        if progress.stage in ("folds", "search") and progress.left:
            stage.append(f", {progress.left}", style="cyan")
        parts.append(stage)
        if progress.warnings:
            more = f" ({len(progress.warnings) - 1} before it)" if len(progress.warnings) > 1 else ""
            parts.append(Text(f"warning: {progress.warnings[-1]}{more}", style="yellow"))
        if progress.studies:
            parts.append(self._table(list(progress.studies.values())))
        return Group(*parts)

    def _table(self, studies: list[StudyProgress]) -> Table:
        from rich.progress_bar import ProgressBar  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=1)
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=40)
        width = 12 if self._console.width >= 100 else 5
        table.add_column(width=width)
        for _ in range(4):
            table.add_column(justify="right", no_wrap=True)
        shown, before, after = window(studies, max(self._console.height - 7, 3))
        if before:
            table.add_row("", Text(f"{before} more done", style="dim"))
        for study in shown:
            bar = ProgressBar(total=study.n_trials or study.n_done or 1, completed=study.n_done, width=width)
            mark = self._spinner if study.state == "running" else Text(*MARKS[study.state])
            style = STYLES[study.state]
            seconds = duration(study.seconds) if study.n_seen else ""
            failed = Text(f"{study.n_failed} failed" if study.n_failed else "", "red")
            best = Text("" if study.best is None else number(study.best), style)
            table.add_row(mark, Text(study.name, style), bar, Text(study.trials, style), best, seconds, failed)
        if after:
            table.add_row("", Text(f"{after} more waiting", style="dim"))
        return table


def watcher(
    stream: TextIO | None = None, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic
) -> Watcher:
    """Choose the view that suits the stream (stderr by default)."""
    stream = stream or sys.stderr
    progress = Progress(clock)
    if quiet:
        return Watcher(progress)
    if stream.isatty():
        from rich.console import Console  # noqa: PLC0415

        console = Console(file=stream)
        if not console.is_dumb_terminal:
            return Live(console, progress)
    return Lines(stream, progress)


def heading(run: RunStarted) -> str:
    """Name the run and its size."""
    n = len(run.studies)
    trials = "" if run.n_trials is None else f" of {run.n_trials} trials"
    limit = "" if run.seconds is None else f", at most {duration(run.seconds)}"
    return f"run {run.run_id}: {run.metric}, {n} {'study' if n == 1 else 'studies'}{trials}{limit}"


def window(studies: list[StudyProgress], room: int) -> tuple[list[StudyProgress], int, int]:
    """Choose what fits around the running study; and count the studies left out before and after."""
    if len(studies) <= room:
        return studies, 0, 0
    at = next((index for index, study in enumerate(studies) if study.state != "done"), len(studies))
    start = min(max(at - room // 2, 0), len(studies) - room)
    return studies[start : start + room], start, len(studies) - room - start


def resume_command(run: RunStarted) -> str:
    """Say what goes on with a run that was stopped."""
    runs = run.folder.parent
    return f"autoxfer run --resume {run.run_id}" + ("" if str(runs) == "runs" else f" --runs {shlex.quote(str(runs))}")


def _summary(study: StudyProgress) -> str:
    failed = f", {study.n_failed} failed" if study.n_failed else ""
    best = "no score" if study.best is None else f"best {number(study.best)} on tune"
    return f"{study.name}: {study.trials} trials{failed}, {best}"
