"""Asking a model hub without waiting for one that does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoxfer import InputError

TABLES = "refs/convert/parquet"  # where the hub keeps every data set as tables: CONFIGURATION/SPLIT/0000.parquet
PROBE_S = 3.0  # seconds until a hub that does not answer counts as unreachable


@contextmanager
def quick_to_give_up() -> Iterator[bool]:
    """Read the cache only where the hub does not answer at once; the hub's client would retry for a minute.

    Gives whether it answers.
    """
    from huggingface_hub import constants, get_session  # noqa: PLC0415 - heavy

    offline = constants.HF_HUB_OFFLINE
    answers = not offline
    if answers:
        try:
            get_session().head(constants.ENDPOINT, timeout=PROBE_S)
        except Exception:  # whatever its client raises, the hub did not answer
            constants.HF_HUB_OFFLINE, answers = True, False
    try:
        yield answers
    finally:
        constants.HF_HUB_OFFLINE = offline


def why(error: Exception, *, answered: bool) -> str:
    """Say in a few words why the hub did not help."""
    if not answered:
        return "the hub does not answer from here, and its cache does not hold it"
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def download_data(name: str) -> Path:
    """Have a data set's tables from the hub, or from its client's cache: NAME or NAME:CONFIGURATION.

    Raises InputError where the hub does not answer, does not know it, or has several configurations of it.
    """
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415 - heavy

    repository, _, configuration = name.partition(":")
    expected = "a file or folder that exists, or the name of a data set on a hub that answers"
    try:
        with quick_to_give_up() as answered:
            if not configuration:
                files = HfApi().list_repo_files(repository, repo_type="dataset", revision=TABLES)
                found = sorted({file.partition("/")[0] for file in files if file.endswith(".parquet")})
                configuration = "default" if "default" in found else found[0] if len(found) == 1 else ""
                if not configuration:
                    told = ", ".join(found) or "no tables"
                    raise InputError(f"hf:{repository}:CONFIGURATION, one of those there are", told, "task.data")
            place = snapshot_download(
                repository, repo_type="dataset", revision=TABLES, allow_patterns=[f"{configuration}/*/*.parquet"]
            )
    except (OSError, ValueError) as error:  # what the hub's client raises are kinds of them
        raise InputError(expected, f"no file {name}; {why(error, answered=answered)}", "task.data") from None
    return Path(place) / configuration
