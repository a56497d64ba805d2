"""Looks at the guard are counted: ``looks.jsonl`` beside the run folders, and what counts as one.

A guard that is asked often enough says yes by chance. So every run that hears verdicts writes a line first, and from
the second look at the same examples on nothing is certified any more (``Verdict.exploratory``).

Two looks are at the same examples where the data set or the guard split alone is the same, by content: a file that was
moved is the same data, more training examples beside the same guard file are no fresh guard. A look is the same look
again, and none is counted, where the data set and all that decides what the guard is asked are the same
(``configuration``): the metric, the examples in each split, the sources by name (which seeds draw on) and by content,
each study's search space and first trials, the budget, the guard's settings, the seed. What decides neither the
finalists nor the test does not count: paths, the task's name, ``device``, ``engine``, ``final``,
``guard.when_undecided``, the versions installed.

A ledger is kept by a runs folder. What MLflow's experiment knows of other folders and machines is copied into it, so
that a run that is resumed finds the looks that it began with.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, final

from optuna.distributions import distribution_to_json

from autoxfer import tracking
from autoxfer.errors import TrackingError
from autoxfer.report import Look, Looks
from autoxfer.runfolder import RunFolder, writing

if TYPE_CHECKING:
    from autoxfer.setting import Setting


@final
@dataclass(frozen=True)
class Ledger:
    """The looks of all runs of a folder, one line of JSON each; lines are only ever added."""

    path: Path

    def read(self) -> tuple[Look, ...]:
        """Read all looks, in the order in which they were taken."""
        return _parse(self.path.read_bytes()) if self.path.is_file() else ()

    def take(self, own: Look, known: Sequence[Look] = ()) -> Looks:
        """Write a look down, once, after those that are ``known`` from elsewhere; it with all before it.

        On disk when this returns. Raises StorageError.
        """
        with writing(self.path), self.path.open("a+b") as handle, _locked(handle):
            handle.seek(0)
            content = handle.read()
            handle.truncate(content.rfind(b"\n") + 1)  # a killed writer's half line
            there = _parse(content)
            names = {look.run_id for look in there} | {own.run_id}
            fresh = [look for look in sorted(known, key=lambda look: look.time) if look.run_id not in names]
            if not any(_is_again(look, own) for look in (*there, *fresh)):
                fresh.append(own)
            handle.write("".join(json.dumps(asdict(look)) + "\n" for look in fresh).encode())
            handle.flush()
            os.fsync(handle.fileno())
        return before((*there, *fresh), own)


def before(looks: Iterable[Look], own: Look) -> Looks:
    """Find the looks at the same examples that came before ``own``, or before it was taken for the first time."""
    earlier: dict[tuple[str, str], Look] = {}
    for look in looks:
        if _is_again(look, own):
            return Looks(look if look.run_id == own.run_id else own, tuple(earlier.values()))
        if look.data == own.data or (look.guard and look.guard == own.guard):
            earlier.setdefault((look.data, look.config), look)
    return Looks(own, tuple(earlier.values()))


def preview(setting: Setting, folder: RunFolder) -> Looks:
    """Say before the search what the ledger knows; takes no look."""
    return before(Ledger(folder.looks).read(), own_look(setting, folder.run_id))


def take(
    setting: Setting, folder: RunFolder, settings: tracking.TrackingSettings, warn: Callable[[str], object]
) -> Looks:
    """Take the run's look, just before its verdicts are told. Raises StorageError where it cannot be written down."""
    own = own_look(setting, folder.run_id)
    known: tuple[Look, ...] = ()
    try:
        known = tracking.past_looks(settings, setting.name, own)
    except TrackingError as error:
        warn(f"MLflow could not be asked who looked at these data before, only {folder.looks} was: {error}")
    return Ledger(folder.looks).take(own, known)


def own_look(setting: Setting, run_id: str) -> Look:
    """Describe the look that a run takes now."""
    data, rows = setting.dataset, setting.splits.rows.get("guard")
    guard = "" if rows is None or not len(rows) else data.fingerprint(rows)
    text = json.dumps(configuration(setting), sort_keys=True, default=str)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Look(now, setting.fingerprint, guard, hashlib.sha256(text.encode()).hexdigest(), run_id)


def configuration(setting: Setting) -> dict[str, Any]:
    """Gather all that decides which finalists the guard sees and how it judges them; new settings count at once."""
    config = setting.config
    return {
        "metric": setting.metric.name,
        "splits": {
            name: hashlib.sha256(rows.tobytes()).hexdigest() for name, rows in setting.splits.rows.items() if len(rows)
        },
        "sources": {name: source.fingerprint for name, source in setting.sources.items()},
        "studies": {
            name: [{key: distribution_to_json(each) for key, each in plan.space.items()}, list(plan.defaults)]
            for name, plan in setting.studies.items()
        },
        "budget": config.budget.model_dump(mode="json"),
        "guard": config.guard.model_dump(mode="json", exclude={"when_undecided"}),
        "seed": config.seed,
    }


def _is_again(look: Look, own: Look) -> bool:
    return (look.data, look.config) == (own.data, own.config)


def _parse(content: bytes) -> tuple[Look, ...]:
    """Read whole lines; one that says nothing of a look (a later version's, a stranger's) is passed over."""
    names, looks = [field.name for field in fields(Look)], []
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        with contextlib.suppress(ValueError, LookupError, TypeError):
            value = json.loads(line)
            looks.append(Look(**{name: str(value[name]) for name in names}))
    return tuple(looks)


@contextlib.contextmanager
def _locked(handle: BinaryIO) -> Iterator[None]:
    """Keep other runs out; the system lets go of the lock with the process, however that ends."""
    import fcntl  # noqa: PLC0415 - not on Windows, where two runs that end at once may miss one another

    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_EX)
    yield
