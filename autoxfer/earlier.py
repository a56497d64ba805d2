"""What an earlier run found, for the next one to start from: ``warm_start`` in the run file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from autoxfer.errors import InputError
from autoxfer.runfolder import RunFolder, write_json
from autoxfer.tuning import Earlier

WHERE = "warm_start"


@final
@dataclass(frozen=True)
class EarlierRun:
    """The completed trials of a finished run, by strategy and source."""

    run_id: str = ""
    studies: Mapping[tuple[str, str | None], Sequence[Earlier]] = field(default_factory=dict)

    def trials(self, strategy: str, source: str | None) -> Sequence[Earlier]:
        """Give those of the same study; where there is none, those of the strategy's first other source."""
        found = self.studies.get((strategy, source))
        return found or next((trials for (name, _), trials in self.studies.items() if name == strategy), ())

    def write(self, path: Path) -> None:
        """Keep it in a run's folder: the earlier run may be gone when this one is resumed."""
        studies = [
            {"strategy": strategy, "source": source, "trials": [[dict(one.params), one.rank] for one in trials]}
            for (strategy, source), trials in self.studies.items()
        ]
        write_json(path, {"run_id": self.run_id, "studies": studies})


def read(name: str | None, runs: Path, directory: Path) -> EarlierRun:
    """Read an earlier run by its ID beside ``runs``, or by its folder. Raises InputError where it has not finished."""
    if name is None:
        return EarlierRun()
    places = [runs / name, directory / Path(name).expanduser()]
    folder = next((RunFolder(place) for place in places if (place / "config.yaml").is_file()), None)
    if folder is None:
        known = sorted(path.parent.name for path in runs.glob("*/config.yaml"))[-5:]
        found = f"{name!r}; the latest are {', '.join(known)}" if known else f"{name!r}, and no run at all"
        raise InputError("a run's ID or its folder", found, WHERE)
    try:
        task = json.loads(folder.result.read_text(encoding="utf-8"))["task"]
        return EarlierRun(folder.run_id, _studies(folder, 1.0 if task["direction"] == "maximize" else -1.0))
    except (OSError, ValueError, LookupError, TypeError) as error:
        reason = f"{name!r}, which has none ({type(error).__name__})"
        raise InputError("a finished run, with its result and its table of trials", reason, WHERE) from None


def kept(path: Path) -> EarlierRun:
    """Read what a run keeps of the one that it began from; nothing where it began cold. Raises InputError."""
    if not path.is_file():
        return EarlierRun()
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        studies = {
            (one["strategy"], one["source"]): [Earlier(params, rank) for params, rank in one["trials"]]
            for one in plain["studies"]
        }
        return EarlierRun(plain["run_id"], studies)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError("what the run began from, in JSON", f"{type(error).__name__}: {error}", str(path)) from None


def _studies(folder: RunFolder, sign: float) -> dict[tuple[str, str | None], list[Earlier]]:
    import pandas as pd  # noqa: PLC0415

    table: Any = pd.read_parquet(folder.trials)
    done = table[(table["state"] == "complete") & table["value"].notna()]
    studies: dict[tuple[str, str | None], list[Earlier]] = {}
    for row in done.itertuples():
        source = row.source if isinstance(row.source, str) else None
        found = Earlier(json.loads(row.params), sign * float(row.value))
        studies.setdefault((str(row.strategy), source), []).append(found)
    return studies
