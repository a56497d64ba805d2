"""MLflow: no other module imports it, and this one only inside functions, since that takes two seconds.

Nothing here is called while trials run: a run is logged once, when everything is decided.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from autoxfer.errors import InputError, TrackingError
from autoxfer.records import StudyResult
from autoxfer.report import Logged, Look, RunRecord
from autoxfer.runfolder import RunFolder
from autoxfer.tracking import evidence
from autoxfer.tracking.session import open_client, probe
from autoxfer.tracking.settings import TrackingSettings, read_settings
from autoxfer.tracking.writing import Writer, experiment_name

__all__ = ["TrackingError", "TrackingSettings", "check", "log_run", "past_looks", "read_settings"]

# Both stand back where the user has set the variable. MLflow's own seven retries last four minutes.
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
PATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}


def check(settings: TrackingSettings) -> None:
    """Make sure, before anything expensive, that runs can be logged; make a fresh database, one process at a time.

    Raises InputError: a dead server, a folder that cannot be written to, a database that is not MLflow's.
    """
    if not settings.enabled:
        return
    for uri in {settings.uri, settings.registry_uri or settings.uri}:
        if uri.startswith(("http://", "https://")):
            probe(uri, settings.origin)
    try:
        _make_database(settings)
        with open_client(settings, IMPATIENT) as client:
            client.search_experiments(max_results=1)
            client.search_registered_models(max_results=1)
    except TrackingError as error:
        raise InputError("an MLflow server or database that can be used", str(error), settings.origin) from error


def _make_database(settings: TrackingSettings) -> None:
    """Make a fresh database aside, and put it in place whole: MLflow cannot mend one whose making was cut short."""
    database = settings.database
    if database is None or database.exists():
        return
    aside = database.with_name(f".{database.name}.{uuid4().hex}")
    try:
        with open_client(replace(settings, uri=f"sqlite:///{aside}", registry_uri=None), IMPATIENT):  # makes the tables
            if not database.exists():  # else another process was faster
                aside.rename(database)
            _remove(database.parent, f".{database.name}.")  # what others left who were killed
    finally:  # the disk may be full
        _remove(database.parent, aside.name)


def _remove(folder: Path, beginning: str) -> None:
    """Remove the files whose names begin so, SQLite's journals among them; one that stays is no reason to stop."""
    with contextlib.suppress(OSError):
        for left in folder.iterdir():
            if left.name.startswith(beginning):
                left.unlink(missing_ok=True)


def log_run(settings: TrackingSettings, folder: Path, record: RunRecord, studies: Sequence[StudyResult]) -> Logged:
    """Log a finished run folder and register its winner; a run that is there already is completed, not repeated.

    Raises TrackingError; the run folder keeps everything, so that it can be logged later.
    """
    if not settings.enabled:
        return Logged()
    with open_client(settings, PATIENT) as client:
        return Writer(client, settings, RunFolder(folder), record, tuple(studies)).write()


def past_looks(settings: TrackingSettings, task: str, own: Look) -> tuple[Look, ...]:
    """Find the looks that the task's experiment knows of at the same data set or guard split, the earliest first.

    Raises TrackingError.
    """
    if not settings.enabled:
        return ()
    with open_client(settings, IMPATIENT) as client:
        experiment = client.get_experiment_by_name(experiment_name(settings, task))
        if experiment is None:
            return ()
        same = [f"tags.`autoxfer.data_fingerprint` = '{own.data}'"]
        same += [f"tags.`autoxfer.guard_fingerprint` = '{own.guard}'"] * bool(own.guard)
        runs = [
            run
            for wanted in same
            for run in client.search_runs(
                [experiment.experiment_id], f"tags.`autoxfer.kind` = 'run' and {wanted}", max_results=1000
            )
        ]
    looks = {run.info.run_id: evidence.look(run.data.tags) for run in runs}
    return tuple(sorted((look for look in looks.values() if look is not None), key=lambda look: look.time))
