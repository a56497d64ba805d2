"""Why each strategy was accepted or not: a finished run read back, its learning curves measured where they are missing.

Nothing here decides: verdicts, diagnostics and winner stand as the run wrote them. Guard and test are not looked at
again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from autoxfer import closing, runfolder
from autoxfer.errors import AutoxferError, InputError
from autoxfer.explaining.diagnosis import Curve, Diagnosis, diagnose
from autoxfer.records import Outcome, Score, StudyResult, Trial
from autoxfer.report import Entry, RunRecord
from autoxfer.runfolder import RunFolder
from autoxfer.studies import BASELINE

if TYPE_CHECKING:
    from autoxfer.setting import Setting


@final
@dataclass(frozen=True)
class Explanation:
    """What is known of a finished run."""

    record: RunRecord
    folder: Path
    studies: Mapping[str, StudyResult]  # with their trials; empty where the table of trials is gone
    diagnostics: Mapping[str, Any]  # diagnostics.json; empty where the run has none
    curves: Mapping[str, Curve]  # by study
    chance_loss: float = math.nan  # of a constant prediction, in the curves' units
    margin: float = 0.0  # as the user gave it
    notes: tuple[str, ...] = ()  # what could not be told, and why

    @property
    def diagnoses(self) -> dict[str, Diagnosis]:
        """What each curve says beside scratch's."""
        return diagnoses(self.curves, self.chance_loss)

    @property
    def baseline(self) -> Entry | None:
        """Scratch's line of the leaderboard."""
        return next((entry for entry in self.record.entries if entry.strategy == BASELINE), None)


def explain(
    run_id: str,
    runs: str | Path = "runs",
    *,
    curves: bool = True,
    say: Callable[[str], object] = lambda text: None,
) -> Explanation:
    """Read a finished run back; with ``curves`` train what its learning curves lack, about three times a study.

    Raises InputError where there is no such run, or it is not finished.
    """
    folder = runfolder.find(Path(runs), run_id)
    record = closing.shipped(folder)
    if record is None:
        raise InputError(
            "a finished run", f"one with something left to do: autoxfer run --resume {run_id}", f"run {run_id}"
        )
    return of_run(record, folder, curves=curves, say=say)


def of_run(
    record: RunRecord,
    folder: RunFolder,
    *,
    curves: bool = False,
    say: Callable[[str], object] = lambda text: None,
) -> Explanation:
    """Explain a run whose record is known."""
    notes: list[str] = []
    studies = _trials(record, folder, notes)
    known, chance = _traced(record, folder, studies, say, notes) if curves else _known(folder)
    diagnostics = _read(folder.diagnostics)
    if not diagnostics and any(entry.source for entry in record.entries):
        notes.append("this run has no diagnostics of its sources")
    return Explanation(record, folder.path, studies, diagnostics, known, chance, _margin(folder), tuple(notes))


def draw(explanation: Explanation, plot: Path | None = None) -> tuple[Explanation, list[Path]]:
    """Draw a run into its folder and, if asked, into ``plot``; gives what was drawn, and a note where it was not.

    Raises AutoxferError where ``plot`` cannot be drawn.
    """
    from autoxfer.explaining import figure  # noqa: PLC0415 - and with it matplotlib

    drawn = []
    if plot is not None:
        figure.draw(explanation, plot)
        drawn.append(plot)
    own = RunFolder(explanation.folder).explanation
    try:
        figure.draw(explanation, own)
    except AutoxferError as error:
        return replace(explanation, notes=(*explanation.notes, f"no plot in the run folder: {error}")), drawn
    return explanation, [*drawn, own]


def illustrate(record: RunRecord, folder: RunFolder, warn: Callable[[str], object]) -> None:
    """Draw the plot of a run that has just ended, without learning curves. A run does not fail for its picture."""
    try:
        drawn = draw(of_run(record, folder))[1]
    except Exception as error:  # what a library may come up with
        warn(f"no plot: {type(error).__name__}: {error}")
        return
    if not drawn:
        warn("no plot: matplotlib is missing, or the run's folder is full")


def _read(path: Path) -> dict[str, Any]:
    """Read a JSON object; what cannot be read is as good as absent."""
    with suppress(OSError, ValueError):
        value = json.loads(path.read_text(encoding="utf-8"))
        return value if isinstance(value, dict) else {}
    return {}


def _margin(folder: RunFolder) -> float:
    import yaml  # noqa: PLC0415

    with suppress(OSError, ValueError, LookupError, TypeError, yaml.YAMLError):
        return float(yaml.safe_load(folder.config.read_text(encoding="utf-8"))["guard"]["margin"])
    return 0.0


def _trials(record: RunRecord, folder: RunFolder, notes: list[str]) -> dict[str, StudyResult]:
    """Read the table of trials: the journal belongs to whoever works on the run."""
    import pandas as pd  # noqa: PLC0415

    try:
        table = pd.read_parquet(folder.trials)
    except (OSError, ValueError):
        notes.append("the table of this run's trials is gone: no learning curves, no reasons of failed trials")
        return {}
    sign = -1.0 if record.task.get("direction") == "minimize" else 1.0
    return {
        entry.study: StudyResult(
            entry.study,
            entry.strategy,
            entry.source,
            tuple(_trial(row, sign) for row in table[table.study == entry.study].to_dict("records")),
            entry.seconds,
        )
        for entry in record.entries
    }


def _trial(row: Mapping[Any, Any], sign: float) -> Trial:
    value, loss = (math.nan if row[name] is None else float(row[name]) for name in ("value", "loss"))
    score = None if math.isnan(value) else Score(value, sign * value, loss)
    outcome = Outcome(row["state"], score, seconds=float(row["seconds"]), reason=str(row["reason"] or ""))
    return Trial(int(row["number"]), json.loads(row["params"]), outcome)


def diagnoses(curves: Mapping[str, Curve], chance: float) -> dict[str, Diagnosis]:
    """Diagnose every curve beside scratch's."""
    scratch = curves.get(BASELINE)
    return {study: diagnose(curve, scratch, chance) for study, curve in curves.items()} if scratch else {}


def _known(folder: RunFolder) -> tuple[dict[str, Curve], float]:
    """Read what was measured before; a damaged file is measured again."""
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        kept = _read(folder.curves)
        return {study: Curve.read(value) for study, value in kept["studies"].items()}, float(kept["chance_loss"])
    return {}, math.nan


def _write(folder: RunFolder, curves: Mapping[str, Curve], chance: float) -> None:
    found = diagnoses(curves, chance)
    studies = {
        study: curve.as_dict() | (found[study].as_dict() if study in found else {}) for study, curve in curves.items()
    }
    runfolder.write_json(folder.curves, {"chance_loss": chance, "studies": studies})


def _traced(
    record: RunRecord,
    folder: RunFolder,
    studies: Mapping[str, StudyResult],
    say: Callable[[str], object],
    notes: list[str],
) -> tuple[dict[str, Curve], float]:
    """Measure what the curves lack; where that is impossible say why and give what is known."""
    from autoxfer.explaining.curves import chance_loss, sizes, trace  # noqa: PLC0415 - torch, where it is needed

    known, chance = _known(folder)
    best = {study: result.best for study, result in studies.items() if result.best is not None}
    wanted = set(sizes(int(record.task["sizes"]["train"]), len(record.task["classes"])))
    if all(study in known and wanted <= set(known[study].sizes) for study in best):
        return known, chance
    try:
        setting = _setting(folder, say)
        chance = chance_loss(setting)
        keep = partial(_write, folder, chance=chance)
        return trace(setting, folder, best, known, say=say, keep=keep), chance
    except AutoxferError as error:
        notes.append(f"no learning curves: {error}")
        return known, chance


def _setting(folder: RunFolder, say: Callable[[str], object]) -> Setting:
    """Read data and sources as the run did. Raises InputError where they are gone or others."""
    from autoxfer import provenance  # noqa: PLC0415
    from autoxfer.config import load_config  # noqa: PLC0415
    from autoxfer.setting import prepare  # noqa: PLC0415
    from autoxfer.tracking import read_settings  # noqa: PLC0415

    say("reading the data and the sources for the learning curves")
    provenance.restore_threads(folder)
    settings = read_settings(None, folder.path.parent)
    setting = prepare(load_config(folder.config), settings)
    provenance.confirm(setting, folder)
    return setting
