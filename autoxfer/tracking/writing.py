"""One run on its way into MLflow.

Each step first looks for what an earlier, interrupted call left: logging a run twice leaves one run and one version.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from autoxfer.errors import TrackingError
from autoxfer.records import StudyResult
from autoxfer.report import Logged, RunRecord
from autoxfer.runfolder import RunFolder
from autoxfer.tracking import evidence
from autoxfer.tracking.evidence import REFIT, TESTED
from autoxfer.tracking.settings import TrackingSettings


@final
@dataclass(frozen=True)
class Writer:
    """One run on its way into MLflow."""

    client: Any  # MlflowClient
    settings: TrackingSettings
    folder: RunFolder
    record: RunRecord
    studies: tuple[StudyResult, ...]

    def write(self) -> Logged:
        """Write the parent, the children, the model and the version, in this order; the parent is closed last."""
        experiment = self._experiment()
        tags = evidence.tags(self.record) | {"autoxfer.kind": "run"}
        parent = self._run(experiment, f"autoxfer-{self._task}-{self.record.run_id}", tags)
        model = self._model(experiment, parent, TESTED) if self.settings.model else ""
        logged = Logged(self.settings.uri, parent.info.run_id, f"models:/{model}" if model else "")
        if self.settings.register:
            logged = self._register(logged, model)
        if self.record.refit and self.settings.model:
            logged = self._refit(logged, self._model(experiment, parent, REFIT))
        if "autoxfer.logged" not in parent.data.tags:
            self._fill(parent, model)
            for study in self.studies:
                self._child(experiment, parent, study)
            self.client.set_tag(parent.info.run_id, "autoxfer.logged", "true")
            self._close(parent, self._seconds)
        return logged

    def _close(self, run: Any, seconds: float) -> None:
        self.client.set_terminated(run.info.run_id, end_time=run.info.start_time + round(1000 * seconds))

    @property
    def _task(self) -> str:
        return _safe(str(self.record.task.get("name", "task")))

    @property
    def _seconds(self) -> float:
        return sum(self.record.timings.values())

    def _experiment(self) -> str:
        """Find or make the experiment; without a server its artifacts lie beside the database, not in the cwd."""
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        name = experiment_name(self.settings, self._task)
        found = self.client.get_experiment_by_name(name)
        if found is None:
            place = self.settings.folder.resolve() / "mlartifacts" / _safe(name)
            try:
                location = None if self.settings.has_server else place.as_uri()
                return str(self.client.create_experiment(name, location))
            except MlflowException:  # another process was faster
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise TrackingError(f"the experiment {name!r} is deleted in MLflow; restore it or name another one")
        return str(found.experiment_id)

    def _run(self, experiment: str, name: str, tags: Mapping[str, str]) -> Any:
        """Find or make the run that carries ``tags``."""
        keys = ("autoxfer.run_id", "autoxfer.kind", "autoxfer.study")
        wanted = [f"tags.`{key}` = '{tags[key]}'" for key in keys if key in tags]
        found = self.client.search_runs([experiment], " and ".join(wanted), max_results=1)
        if found:
            return found[0]
        with contextlib.suppress(OSError, KeyError):  # a container's user need not have a name
            tags = {"mlflow.user": getpass.getuser(), **tags}
        source = {"mlflow.source.name": "autoxfer", "mlflow.source.type": "LOCAL"}
        start = round(1000 * (time.time() - self._seconds))
        return self.client.create_run(experiment, start_time=start, tags={**source, **tags}, run_name=name)

    def _fill(self, parent: Any, model: str) -> None:
        """Add to the parent what the run as a whole has to show."""
        run_id = parent.info.run_id
        config = _load_yaml(self.folder.config)
        winner = {f"winner.{key}": value for key, value in evidence.flatten(self.record.winner.params).items()}
        params = {"winner": evidence.winner_entry(self.record).study, **winner, **evidence.flatten(config)}
        self._batch(parent, evidence.run_metrics(self.record), params, model)
        self.client.log_inputs(run_id, [self._dataset(config)])
        files = [self.folder.config, self.folder.environment, self.folder.result, self.folder.losses]
        files += [self.folder.diagnostics, self.folder.explanation]
        for file in (*files, *((self.folder.trials,) if self.settings.trials else ())):
            if file.is_file():
                self.client.log_artifact(run_id, str(file))
        for file in (self.folder.winner / "model.safetensors", self.folder.winner / "model.json"):
            if file.is_file():
                self.client.log_artifact(run_id, str(file), "weights")
        page = evidence.page(self.record)
        self.client.log_text(run_id, page + "\n", "leaderboard.md")
        self.client.set_tag(run_id, "mlflow.note.content", page[:8000])
        if self.settings.trials:
            self.client.log_dict(run_id, evidence.trial_table(self.studies), "trials.json")
            self.client.set_tag(run_id, "mlflow.loggedArtifacts", '[{"path": "trials.json", "type": "table"}]')

    def _child(self, experiment: str, parent: Any, study: StudyResult) -> None:
        """Write one study: its best parameters, its scores and verdict, and the course of its trials."""
        entry = next((entry for entry in self.record.entries if entry.study == study.id), None)
        if entry is None:
            return
        tags = {
            "mlflow.parentRunId": parent.info.run_id,
            "autoxfer.run_id": self.record.run_id,
            "autoxfer.kind": "study",
            "autoxfer.study": study.id,
            "autoxfer.verdict": "baseline" if entry.verdict is None else entry.verdict.decision,
            "mlflow.note.content": "" if entry.verdict is None else entry.verdict.reason,
        }
        if entry.given_up:
            tags["autoxfer.given_up"] = entry.given_up
        for what, count in (entry.warm_start or {}).items():
            tags[f"autoxfer.warm_start_{what}"] = str(count)
        child = self._run(experiment, study.id, tags)
        params = {"strategy": entry.strategy, "source": entry.source or "", **evidence.flatten(entry.params)}
        scored = [(t.number, t.outcome.score.value) for t in study.trials if t.outcome.score is not None]
        self._batch(child, evidence.entry_metrics(entry), params, curve={"trial/tune": scored})
        self._close(child, entry.seconds)

    def _batch(
        self,
        run: Any,
        metrics: Mapping[str, float],
        params: Mapping[str, str],
        model: str = "",
        curve: Mapping[str, Sequence[tuple[int, float]]] | None = None,
    ) -> None:
        """Log metrics and parameters in as few requests as MLflow's limits allow; what is there already stays."""
        from mlflow.entities import Metric, Param  # noqa: PLC0415

        # One timestamp for all: a metric that is logged again is then the same row, not a second point.
        now, model_id = run.info.start_time, model or None
        points = [Metric(_key(key), value, now, 0, model_id=model_id) for key, value in metrics.items()]
        points += [Metric(key, value, now, step) for key, pairs in (curve or {}).items() for step, value in pairs]
        known = run.data.params
        fresh = [Param(_key(key), value[:6000]) for key, value in params.items() if _key(key) not in known]
        for start in range(0, len(fresh), 100):
            self.client.log_batch(run.info.run_id, params=fresh[start : start + 100])
        for start in range(0, len(points), 1000):
            self.client.log_batch(run.info.run_id, metrics=points[start : start + 1000])

    def _dataset(self, config: Mapping[str, Any]) -> Any:
        """Name the data by fingerprint and location; the data themselves stay where they are."""
        from mlflow.entities import Dataset, DatasetInput, InputTag  # noqa: PLC0415

        task = self.record.task
        location = str(config.get("task", {}).get("data", task.get("name", "")))
        sizes = task.get("sizes")
        dataset = Dataset(
            name=str(task.get("name", "data"))[:500],
            digest=str(task.get("data_fingerprint", ""))[:16] or "unknown",  # MLflow takes 36 and shows 16
            source_type="local",
            source=json.dumps({"uri": location}),
            profile=json.dumps({"modality": task.get("modality"), **(sizes if isinstance(sizes, Mapping) else {})}),
        )
        return DatasetInput(dataset, [InputTag("mlflow.data.context", "train, tune, guard, test")])

    def _model(self, experiment: str, parent: Any, weights: str) -> str:
        """Log the winner, or its refit, as a model of MLflow's own, once; return its id."""
        wanted = f"tags.`autoxfer.run_id` = '{self.record.run_id}' and source_run_id = '{parent.info.run_id}'"
        for found in self.client.search_logged_models([experiment], wanted):
            if found.tags.get("autoxfer.weights", TESTED) != weights:
                continue
            if found.status == "READY":
                return str(found.model_id)
            self.client.delete_logged_model(found.model_id)  # an interrupted call left half of it
        from mlflow.entities import LoggedModelOutput  # noqa: PLC0415

        from autoxfer.tracking.model import save_model  # noqa: PLC0415 - it imports torch

        winner = self.record.winner
        tags, params = evidence.tags(self.record), evidence.flatten(winner.params)
        folder, name = (self.folder.winner, "winner") if weights == TESTED else (self.folder.refit, "refit")
        if weights == REFIT:
            tags = evidence.as_refit(tags)
        run_id = parent.info.run_id
        model = self.client.create_logged_model(experiment, name, run_id, tags, params, winner.strategy)
        with tempfile.TemporaryDirectory() as temporary:
            save_model(folder, Path(temporary) / "model", model, run_id)
            self.client.log_model_artifacts(model.model_id, str(Path(temporary) / "model"))
        self.client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
        self.client.finalize_logged_model(model.model_id, "READY")
        return str(model.model_id)

    def _register(self, logged: Logged, model: str) -> Logged:
        """Make the winner a version of its name, once, and give it an alias, once."""
        name = self.settings.name or self._task
        self._registered_model(name)
        text, tags = evidence.verdict_text(self.record), evidence.version_tags(self.record)
        version = self._version(name, logged.run_id, model, tags, text)
        if "autoxfer.alias" not in version.tags:
            alias = self._alias(name, str(version.version))
            self.client.set_registered_model_alias(name, alias, version.version)
            self.client.set_model_version_tag(name, version.version, "autoxfer.alias", alias)
        return replace(logged, model_uri=f"models:/{name}/{version.version}", name=name, version=str(version.version))

    def _refit(self, logged: Logged, model: str) -> Logged:
        """Make the refit a version beside the tested one; it gets no alias."""
        if not logged.version:
            return logged
        tested = f"version {logged.version}, the tested weights,"
        text, tags = evidence.refit_text(self.record, tested), evidence.as_refit(evidence.version_tags(self.record))
        version = self._version(logged.name, logged.run_id, model, tags, text)
        return replace(logged, refit_version=str(version.version))

    def _version(self, name: str, run_id: str, model: str, tags: Mapping[str, str], text: str) -> Any:
        """Find or make the version that carries this run's id and says of the same weights."""
        weights = tags["autoxfer.weights"]
        for version in self.client.search_model_versions(
            f"name = '{name}' and tags.`autoxfer.run_id` = '{self.record.run_id}'"
        ):
            if version.tags.get("autoxfer.weights", TESTED) == weights:
                return version
        return self.client.create_model_version(
            name, f"models:/{model}", run_id, dict(tags), description=text, model_id=model
        )

    def _registered_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException  # noqa: PLC0415

        about = (
            f"Winners of the task {self._task}, chosen by autoxfer. `{self.settings.champion}` is the version to "
            f"serve, `{self.settings.challenger}` the latest winner that waits for promotion."
        )
        try:
            self.client.create_registered_model(name, {"autoxfer.task": self._task}, about)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _alias(self, name: str, version: str) -> str:
        """Champion where the name has none and the winner is certified; a challenger otherwise."""
        holder = self.client.get_registered_model(name).aliases.get(self.settings.champion, version)
        free = str(holder) == version
        return self.settings.champion if free and self.record.winner.certified else self.settings.challenger


def experiment_name(settings: TrackingSettings, task: str) -> str:
    """Name the experiment in which a task's runs stand."""
    return settings.experiment or _safe(task)


def _load_yaml(path: Path) -> dict[str, Any]:
    import yaml  # noqa: PLC0415

    return dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}


def _key(name: str) -> str:
    return re.sub(r"[^\w\-. /]", "_", name)[:250]


def _safe(name: str) -> str:
    """Make a name that registry, file system and address bar all take."""
    return re.sub(r"[^\w-]+", "-", name).strip("-") or "task"
