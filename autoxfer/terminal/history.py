"""The runs that lie in a folder: what each was about, what won, and whether something is left to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from autoxfer.config.runfile import parse
from autoxfer.errors import InputError
from autoxfer.runfolder import RunFolder
from autoxfer.terminal.progress import number


def past_runs(runs: Path) -> list[dict[str, Any]]:
    """Describe every run in ``runs``, the oldest first; a damaged one is listed as such."""
    return [_describe(RunFolder(path.parent)) for path in sorted(runs.glob("*/config.yaml"))]


def rows(past: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Lay the runs out as rows of text under headings."""
    lines: list[tuple[str, ...]] = [("run", "task", "metric", "winner", "guard", "test", "state", "MLflow")]
    for run in past:
        scores = [number(run[key]) for key in ("guard", "test")]
        words = [run[key] or "-" for key in ("run_id", "task", "metric", "winner")]
        if run["certified"] is False:
            words[-1] += " (NOT CERTIFIED)"
        if (run["look"] or 1) > 1:
            words[-1] += f" (look {run['look']}: exploratory)"
        lines.append((*words, *scores, run["state"], run["model"] or "-"))
    return lines


def _describe(folder: RunFolder) -> dict[str, Any]:
    run: dict[str, Any] = dict.fromkeys(("task", "metric", "winner", "guard", "test", "certified", "look", "model"))
    run = {"run_id": folder.run_id, "folder": str(folder.path), "state": "unfinished", **run}
    try:
        config = parse(folder.config.read_text(encoding="utf-8"), str(folder.config))[0]
        run |= {key: config["task"].get(name) for key, name in (("task", "name"), ("metric", "metric"))}
        if folder.result.is_file():
            run |= _outcome(json.loads(folder.result.read_text(encoding="utf-8")))
    except (InputError, OSError, ValueError, LookupError, TypeError, AttributeError):
        run["state"] = "damaged"
    return run


def _outcome(result: dict[str, Any]) -> dict[str, Any]:
    winner, logged = result["winner"], result["mlflow"]
    finished = "finished" if "export" in result["timings"] else "unfinished"
    return {
        "task": result["task"]["name"],
        "metric": result["task"]["metric"],
        "winner": winner["strategy"] if winner["source"] is None else f"{winner['strategy']}@{winner['source']}",
        **{key: winner[key] for key in ("guard", "test", "certified")},
        "look": (result.get("looks") or {}).get("number"),
        "model": _model(logged),
        "state": "not logged"
        if finished == "finished" and logged["tracking_uri"] and not logged["run_id"]
        else finished,
    }


def _model(logged: dict[str, Any]) -> str | None:
    refit = logged.get("refit_version")
    beside = f", refit {refit} (NOT CERTIFIED)" if refit else ""
    return f"{logged['name']} version {logged['version']}{beside}" if logged["name"] else None
