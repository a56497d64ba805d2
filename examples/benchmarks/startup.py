"""How long autoxfer takes to begin: its help, its list of plugins, and the first trial of examples/digits.

    python examples/benchmarks/startup.py [--short | --smoke] [--json]

Every time is that of a new process; medians of several rounds, in turn. The files are warm: they have been read before.

- help, plugins: the whole command.
- first_trial: from the start of the process until the search begins, in a new folder of runs, where MLflow's database
  has to be made; ``again``: in a folder that has one. ``checked`` is when everything was read and checked.
- torch: the interpreter and torch alone, below which no first trial can begin.

``cpu`` is what all cores together were kept busy: unlike the time it hardly depends on what else the machine does.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common import finish, parser

DIGITS = Path(__file__).resolve().parents[1] / "digits" / "run.yaml"
FIRST_TRIAL = """
import os, sys, time
import autoxfer
from autoxfer.events import RunStarted, StudyStarted
class Watch:
    def notify(self, event):
        if isinstance(event, RunStarted):
            print(time.time(), flush=True)
        if isinstance(event, StudyStarted):
            print(time.time(), flush=True)
            os._exit(0)
autoxfer.run(sys.argv[1], runs=sys.argv[2], overrides=[f"device={sys.argv[3]}"], observers=[Watch()])
"""


def main() -> None:
    arguments = parser(__doc__).parse_args()
    n_rounds = 1 if arguments.smoke else 3 if arguments.short else 7
    times: dict[str, list[tuple[float, ...]]] = {}
    with TemporaryDirectory() as temporary:
        for number in range(n_rounds):
            runs = Path(temporary) / f"runs-{number}"
            run = ["-c", FIRST_TRIAL, str(DIGITS), str(runs), arguments.device]
            commands = {
                "help": ["-m", "autoxfer", "--help"],
                "plugins": ["-m", "autoxfer", "plugins"],
                "torch": ["-c", "import torch"],
                "first_trial": run,
                "again": run,
            }
            for name, command in commands.items():
                times.setdefault(name, []).append(process(command, Path(temporary)))
                print(f"  {name}: {times[name][-1][0]:.2f} s", file=sys.stderr, flush=True)
    rows = [line(name, *map(statistics.median, zip(*found, strict=True))) for name, found in times.items()]
    finish(arguments, rows, **{f"{row['what']}_s": row["seconds"] for row in rows})


def process(command: list[str], place: Path) -> tuple[float, ...]:
    """Run Python once: seconds, CPU seconds, and when it printed each of the last two times, if it did."""
    environment = {**os.environ, "AUTOXFER_CACHE": str(place / "cache")}
    started = time.time()
    with subprocess.Popen(
        [sys.executable, "-P", *command], stdout=subprocess.PIPE, text=True, cwd=place, env=environment
    ) as child:
        assert child.stdout is not None
        said = child.stdout.read().split()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.time() - started
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    used = usage.ru_utime + usage.ru_stime
    return (seconds, used, *(float(word) - started for word in said)) if command[1] == FIRST_TRIAL else (seconds, used)


def line(
    name: str, seconds: float, cpu: float, checked: float | None = None, begun: float | None = None
) -> dict[str, Any]:
    """Make one line of the table; a run counts until its search begins."""
    return {"what": name, "seconds": begun or seconds, "cpu": cpu, "checked": checked}


if __name__ == "__main__":
    main()
