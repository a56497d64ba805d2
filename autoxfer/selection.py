"""The life of a run: read, split, tune, judge once, choose, report once, ship, log."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final
from uuid import uuid4

from autoxfer import (
    closing,
    earlier,
    explaining,
    folding,
    forecasting,
    judging,
    looks,
    provenance,
    refitting,
    runfolder,
    tracking,
)
from autoxfer.assessment import assess
from autoxfer.config import RunConfig, load_config
from autoxfer.errors import AutoxferError
from autoxfer.events import Event, Foreseen, Observer, RunStarted, StageStarted, VerdictReached, Warned
from autoxfer.export import save_winner
from autoxfer.finalists import Finalist, certified, choose, entry
from autoxfer.metering import Meter
from autoxfer.records import StudyResult, Verdict
from autoxfer.registered import pinned
from autoxfer.report import Forecast, Logged, Looks, RunRecord, Winner, read_record
from autoxfer.result import Result
from autoxfer.runfolder import RunFolder
from autoxfer.searching import job_of, search
from autoxfer.seen import LIST
from autoxfer.setting import Setting, prepare
from autoxfer.tokens import without_unread
from autoxfer.winnerfiles import is_whole

if TYPE_CHECKING:
    from autoxfer.composed import Composed
    from autoxfer.folding import Pooled
    from autoxfer.trials import Bench


def run(
    config: RunConfig | Mapping[str, Any] | str | Path,
    *,
    overrides: Sequence[str] = (),
    runs: str | Path = "runs",
    mlflow: str | Path | None = None,
    observers: Sequence[Observer] = (),
) -> Result:
    """Find the best way to reuse the sources, or keep to scratch. Raises InputError before any training."""
    meter = Meter()
    if not isinstance(config, RunConfig):
        config = load_config(config, overrides)
    runs = Path(runs)
    runfolder.check(runs)
    settings = tracking.read_settings(None if mlflow is None else Path(mlflow), runs)
    config = pinned(config, settings)
    began = earlier.read(config.warm_start, runs, config.directory)
    setting = prepare(config, settings)  # what is wrong with the data shows soon, a fresh database takes longer
    tracking.check(settings)
    folder = runfolder.create(runs, f"{datetime.now():%Y%m%d-%H%M%S}-{uuid4().hex[:4]}")
    setting = replace(setting, earlier=began)
    provenance.describe(setting, folder)
    return _Run(setting, folder, settings, observers, meter).finish()


def resume(
    run_id: str,
    *,
    runs: str | Path = "runs",
    mlflow: str | Path | None = None,
    observers: Sequence[Observer] = (),
) -> Result:
    """Go on with a run where it stopped; of a finished one, what is left is to log it, if that had failed.

    Raises InputError where there is none, or its data have changed since.
    """
    runs = Path(runs)
    folder = runfolder.find(runs, run_id)
    settings = tracking.read_settings(None if mlflow is None else Path(mlflow), runs)
    if record := closing.shipped(folder):
        return Result(closing.finish_again(record, folder, settings, observers), folder.path)
    tracking.check(settings)
    provenance.restore_threads(folder)
    setting = replace(prepare(load_config(folder.config), settings), earlier=earlier.kept(folder.earlier))
    provenance.confirm(setting, folder)
    return _Run(setting, folder, settings, observers).finish()


def compare(setting: Setting, folder: RunFolder, seen: Looks, observers: Sequence[Observer] = ()) -> RunRecord:
    """Search and judge, nothing more: no winner is shipped, nothing logged. A folder with a record gives that.

    ``seen`` is the look at the guard that has been taken for it. Called again after a kill, it goes on.
    """
    if folder.result.is_file():
        return read_record(json.loads(folder.result.read_text(encoding="utf-8")))
    run = _Run(setting, folder, tracking.TrackingSettings("", folder.path.parent, enabled=False), observers, looks=seen)
    with folder.owned():
        with run._stage("search"):
            results = search(setting, folder, run._bench, run._tell)
        with run._stage("guard"):
            finalists = judging.answer(setting, run._bench, results, None)
            verdicts = run._judge(results, finalists, exploratory=seen.number > 1)
        chosen = choose(finalists, verdicts, setting.config.guard.when_undecided)
        scores = judging.score_on_test(setting, run._bench, finalists)
        record = run._record(results, finalists, verdicts, chosen, scores)
        runfolder.write_json(folder.result, record.as_dict())
    return record


@final
@dataclass
class _Run:
    setting: Setting
    folder: RunFolder
    settings: tracking.TrackingSettings
    observers: Sequence[Observer]
    meter: Meter | None = None  # None for a run that was stopped before
    forecast: Forecast | None = None
    timings: dict[str, float] = field(default_factory=dict)
    looks: Looks | None = None
    pooled: Pooled | None = None  # what the guard is asked about where it is made of folds

    def finish(self) -> Result:
        """Do what is still to be done. Every stage can be repeated: it ends where it ended before."""
        with self.folder.owned():
            config = self.setting.config
            self._tell(
                RunStarted(
                    self.folder.run_id,
                    self.folder.path,
                    folding.names(self.setting),
                    config.budget.trials,
                    config.budget.seconds,
                    self.setting.metric.name,
                )
            )
            foreseen = looks.preview(self.setting, self.folder).note
            for warning in (*self.setting.warnings, *filter(None, [foreseen])):
                self._tell(Warned(warning))
            with self._stage("diagnostics"):
                order = assess(self.setting, self.folder)
            with self._stage("forecast"):
                self._foresee()
            if self.setting.folds:
                with self._stage("folds"):
                    self.pooled = folding.search_folds(self.setting, self.folder, self._tell)
            with self._stage("search"):
                results = search(self.setting, self.folder, self._bench, self._tell, order)
            with self._stage("guard"):
                finalists = judging.answer(self.setting, self._bench, results, self.pooled)
                self.looks = looks.take(self.setting, self.folder, self.settings, self._warn)
                if self.looks.note and self.looks.note != foreseen:
                    self._warn(self.looks.note)
                verdicts = self._judge(results, finalists, exploratory=self.looks.number > 1)
            chosen = choose(finalists, verdicts, config.guard.when_undecided)
            if not certified(chosen, verdicts):
                self._warn(f"{chosen} is NOT CERTIFIED: {verdicts[chosen].caveat}")
            record = self._record(results, finalists, verdicts, chosen, {})
            runfolder.write_json(self.folder.result, record.as_dict())  # the verdicts stand before test is looked at
            with self._stage("test"):
                scores = judging.score_on_test(self.setting, self._bench, finalists)
            record = self._record(results, finalists, verdicts, chosen, scores)
            with self._stage("export"):
                self._export(self.folder.winner, finalists[chosen].composed, record.winner, record)
            if config.final == "refit":
                with self._stage("refit"):
                    record = self._refit(finalists[chosen], record)
            record = closing.ship(replace(record, timings=dict(self.timings)), self.folder, self.settings)
            explaining.illustrate(record, self.folder, self._warn)
            record = closing.log(record, self.folder, self.settings, results, self.observers, meter=self.meter)
        return Result(record, self.folder.path)

    def _foresee(self) -> None:
        """Say what the run will take, where that is cheap to know; a resumed run keeps what was said first."""
        if self.meter is None:
            self.forecast = closing.recorded_forecast(self.folder)
            if self.forecast is not None:
                self._tell(Foreseen(self.forecast))
            return
        before = {"setup": self.meter.read().seconds - sum(self.timings.values()), **self.timings}
        self.forecast = forecasting.forecast(self.setting, self._bench, self.meter, before, logs=self.settings.enabled)
        if self.forecast is not None:
            runfolder.write_json(self.folder.forecast, asdict(self.forecast))
            self._tell(Foreseen(self.forecast))
            for study, fault in self.forecast.faults.items():
                self._warn(f"{study} fails with its defaults: {fault}")

    @cached_property
    def _bench(self) -> Bench:
        return self.setting.bench(self.folder)

    def _judge(
        self, results: Sequence[StudyResult], finalists: Mapping[str, Finalist], *, exploratory: bool
    ) -> dict[str, Verdict]:
        """Ask the guard, once, and say what it answers."""
        verdicts = judging.verdicts(self.setting, results, finalists, self.pooled, exploratory=exploratory)
        for name, verdict in verdicts.items():
            self._tell(VerdictReached(name, verdict))
        judging.write_losses(self.setting, self.folder, finalists, self.pooled)
        return verdicts

    def _refit(self, finalist: Finalist, record: RunRecord) -> RunRecord:
        """Train the winner's recipe again on all but test, beside the tested weights."""
        job = job_of(self.setting, finalist.study.id, finalist.trial)
        try:
            composed = refitting.refit(self.setting, self.folder, job, finalist.trial.outcome.notes)
        except AutoxferError as error:
            self._warn(f"no refit: {error}")
            return record
        composed.temperature = finalist.composed.temperature  # nothing is left to fit another on
        again = {job.study: replace(finalist, composed=composed)}
        scores = judging.score_on_test(self.setting, self._bench, again)
        refit = refitting.uncertified(record.winner, scores.get(job.study))
        self._export(self.folder.refit, composed, refit, record)
        return replace(record, refit=refit)

    def _export(self, place: Path, composed: Composed, winner: Winner, record: RunRecord) -> None:
        """Write a winner's files."""
        info = {
            "run_id": record.run_id,
            "strategy": winner.strategy,
            "source": winner.source,
            "params": dict(winner.params),
            "certified": winner.certified,
            "metric": self.setting.metric.name,
            "temperature": composed.temperature,
            "scores": {"tune": winner.tune, "guard": winner.guard, "test": winner.test},
            "sources": {name: source.fingerprint for name, source in self.setting.sources.items()},
            "data_fingerprint": record.task["data_fingerprint"],
        }
        if is_whole(place, runfolder.plain(info)):
            return  # a killed run got as far; MLflow may hold these very files already
        example = self.setting.features.stored("train")[:2].cpu().numpy()
        schema = self.setting.stored
        schema = replace(schema, tokenizers=without_unread(schema.tokenizers, composed.reader.names))
        learned = {LIST: self.setting.learned(winner.source)}
        save_winner(place, composed.cpu(), schema, example, info, trained_on=learned)

    def _record(
        self,
        results: Sequence[StudyResult],
        finalists: Mapping[str, Finalist],
        verdicts: Mapping[str, Verdict],
        chosen: str,
        test: Mapping[str, float],
    ) -> RunRecord:
        entries = tuple(entry(study, finalists.get(study.id), verdicts.get(study.id), test) for study in results)
        best = next(line for line in entries if line.study == chosen)
        winner = Winner(
            best.strategy, best.source, best.params, best.tune, best.guard, best.test, certified(chosen, verdicts)
        )
        task, timings = self.setting.task(), dict(self.timings)
        return RunRecord(
            self.folder.run_id, task, winner, entries, Logged(), timings, looks=self.looks, forecast=self.forecast
        )

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self._tell(StageStarted(name))
        started = time.monotonic()
        yield
        self.timings[name] = time.monotonic() - started

    def _warn(self, text: str) -> None:
        self._tell(Warned(text))

    def _tell(self, event: Event) -> None:
        for observer in self.observers:
            observer.notify(event)
