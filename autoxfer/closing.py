"""The end of a run: it is logged to MLflow, now or when it is resumed. Its winner is shipped by then."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace

from autoxfer import tracking, tuning
from autoxfer.events import Observer, RunFinished, RunStarted, StageStarted, Warned
from autoxfer.metering import Meter
from autoxfer.records import StudyResult
from autoxfer.report import Forecast, Logged, RunRecord, read_forecast, read_record
from autoxfer.runfolder import RunFolder, write_json


def ship(record: RunRecord, folder: RunFolder, settings: tracking.TrackingSettings) -> RunRecord:
    """Write that everything is done but the logging; where a run is to be logged stands there before it is."""
    record = replace(record, mlflow=Logged(tracking_uri=settings.uri if settings.enabled else ""))
    write_json(folder.result, record.as_dict())
    return record


def log(
    record: RunRecord,
    folder: RunFolder,
    settings: tracking.TrackingSettings,
    studies: Sequence[StudyResult],
    observers: Sequence[Observer],
    *,
    meter: Meter | None = None,  # of a run that was never stopped
) -> RunRecord:
    """Log a shipped run once, however often this is called; a failure is a warning, since nothing is lost."""
    _tell(observers, StageStarted("log"))
    started = time.monotonic()
    try:
        logged = tracking.log_run(settings, folder.path, record, studies)
    except tracking.TrackingError as error:
        text = f"not logged to MLflow ({error}); `autoxfer run --resume {record.run_id}` logs it"
        _tell(observers, Warned(text))
        logged = record.mlflow
    record = replace(record, mlflow=logged, timings={**record.timings, "log": time.monotonic() - started})
    if meter is not None and record.forecast is not None:
        record = replace(record, forecast=replace(record.forecast, used=meter.read()))
    write_json(folder.result, record.as_dict())
    _tell(observers, RunFinished(record, folder.path))
    return record


def finish_again(
    record: RunRecord, folder: RunFolder, settings: tracking.TrackingSettings, observers: Sequence[Observer]
) -> RunRecord:
    """Take up a run whose winner is shipped: log it if it is not logged yet. Needs neither data nor sources."""
    if record.mlflow.run_id or not settings.enabled:
        _tell(observers, RunFinished(record, folder.path))
        return record
    tracking.check(settings)
    names = tuple(entry.study for entry in record.entries)
    with folder.owned():
        _tell(observers, RunStarted(folder.run_id, folder.path, names, None, None, str(record.task["metric"])))
        journal = tuning.Journal(folder.journal)
        studies = [
            StudyResult(e.study, e.strategy, e.source, journal.closed(journal.open_study(e.study)), e.seconds)
            for e in record.entries
        ]
        return log(ship(record, folder, settings), folder, settings, studies, observers)


def recorded_forecast(folder: RunFolder) -> Forecast | None:
    """Read what a run was expected to take when it began; None where nothing was said."""
    try:
        return read_forecast(json.loads(folder.forecast.read_text(encoding="utf-8")))
    except (OSError, ValueError, LookupError, TypeError):
        return None


def shipped(folder: RunFolder) -> RunRecord | None:
    """Read the record of a run whose winner is shipped; None where something before that is still to be done."""
    try:
        value = json.loads(folder.result.read_text(encoding="utf-8"))
        return read_record(value) if "export" in value["timings"] else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _tell(observers: Sequence[Observer], event: StageStarted | Warned | RunFinished | RunStarted) -> None:
    for observer in observers:
        observer.notify(event)
