"""Which columns of a table are numbers, which are categories, which hold texts, and which are of no use."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from autoxfer import Column, InputError, as_text

MOST_CATEGORIES = 50  # kept of one column, the most frequent; a rarer one counts as missing
MANY_WORDS = 5  # words on average from which nearly unique strings are text
FEW_WORDS = 2  # the same, where the column's name says that it is text
TEXT_NAMES = ("text", "sentence", "review", "question", "comment", "message", "utterance", "query")
MANY_NUMBERS = 20  # different ones from which a column is no list of codes
STRAY = 0.05  # share of its cells that may be words before it is taken for categories
ENOUGH = 20  # rows from which a column of different values can be called an identifier
NOT_A_NUMBER = ("?", "-", ".")  # what stands for a missing number in older files
COMMA = re.compile(r"[-+]?\d+,\d+")
DATE = re.compile(r"\d{1,4}[-/]\d{1,2}[-/]\d{1,4}([ T].*)?")
IDENTIFIER = re.compile(r"(.*[_ .])?(id|index|uuid|rownum)|unnamed: ?\d+|__index_level_\d+__", re.IGNORECASE)


def is_number(text: str) -> bool:
    """Whether ``text`` reads as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def choose_columns(features: Mapping[str, Sequence[Any]], warnings: list[str], where: str) -> tuple[Column, ...]:
    """Describe the columns that are worth learning from; warn of each that is left out.

    Raises InputError for a column of numbers in which a few cells are none: as categories they would say nothing.
    """
    chosen: list[Column] = []
    dropped: dict[str, list[str]] = {}
    for name, values in features.items():
        texts = as_text(values)
        counts = Counter(text for text in texts if text is not None)
        _check_strays(name, counts, texts, where)
        reason = _useless(name, counts, len(texts))
        if reason:
            dropped.setdefault(reason, []).append(name)
        elif _numeric(counts):
            chosen.append(Column(name, "numeric"))
        else:
            chosen.append(_categorical(name, counts, warnings))
    warnings += [f"left out, {reason}: {', '.join(names)}" for reason, names in dropped.items()]
    return tuple(chosen)


def text_columns(features: Mapping[str, Sequence[Any]]) -> list[str]:
    """Name the columns of sentences: several words a row, most of them in one row alone, or a name that says so.

    By its name a column may hold shorter texts, or long ones that repeat, if they are too many for categories.
    """
    found = []
    for name, values in features.items():
        counts = Counter(text for text in as_text(values) if text is not None)
        if not counts or _numeric(counts):
            continue
        called, rare = name.lower() in TEXT_NAMES, 2 * len(counts) > counts.total()
        many = called and len(counts) > MOST_CATEGORIES and _words(counts) >= MANY_WORDS
        if many or (rare and _words(counts) >= (FEW_WORDS if called else MANY_WORDS)):
            found.append(name)
    return found


def _numeric(counts: Counter[str]) -> bool:
    """Whether all that is there are numbers, or signs for a missing one."""
    real = [text for text in counts if text not in NOT_A_NUMBER]
    return bool(real) and all(is_number(text) for text in real)


def _check_strays(name: str, counts: Counter[str], texts: Sequence[str | None], where: str) -> None:
    """Refuse many different numbers with a few words among them, or with decimal commas. Raises InputError."""
    if len(counts) < MANY_NUMBERS:
        return
    commas = [text for text in counts if COMMA.fullmatch(text)]
    if commas and len(commas) + sum(map(is_number, counts)) >= (1 - STRAY) * len(counts):
        expected = f"numbers with a decimal point in column {name!r}"
        raise InputError(expected, f"{commas[0]!r}, with a comma (task.ignore leaves a column out)", where)
    strays = {text for text in counts if text not in NOT_A_NUMBER and not is_number(text)}
    n_strays = sum(counts[text] for text in strays)
    if not strays or n_strays > STRAY * counts.total() or len(counts) - len(strays) < MANY_NUMBERS:
        return
    row = next(index for index, text in enumerate(texts) if text in strays)
    expected = f"numbers in column {name!r}, as {counts.total() - n_strays:,} of {counts.total():,} of its cells are"
    raise InputError(expected, f"{texts[row]!r} in row {row + 1:,} (task.ignore leaves a column out)", where)


def _useless(name: str, counts: Counter[str], n: int) -> str | None:
    """Why a column says nothing about an example that is not yet seen; None where it may."""
    if len(counts) < 2:
        return "the same everywhere" if counts else "nothing in them"
    if all(DATE.fullmatch(text) for text in counts):
        return "dates, which are not read yet"
    if n < ENOUGH:
        return None
    if _numeric(counts):
        return "a different number in every row" if _numbers_rows(name, counts, n) else None
    unique = len(counts) > 0.9 * n and _words(counts) < MANY_WORDS
    return "a different name in nearly every row" if unique else None


def _numbers_rows(name: str, counts: Counter[str], n: int) -> bool:
    """Whether whole numbers are called an identifier, or count the rows without a gap."""
    if len(counts) < n or not all(re.fullmatch(r"-?\d+", text) for text in counts):
        return False
    values = [int(text) for text in counts]
    return bool(IDENTIFIER.fullmatch(name)) or max(values) - min(values) == n - 1


def _words(counts: Counter[str]) -> float:
    return sum(len(text.split()) * count for text, count in counts.items()) / counts.total()


def _categorical(name: str, counts: Counter[str], warnings: list[str]) -> Column:
    """Keep the most frequent categories, in alphabetical order."""
    kept = sorted(counts, key=lambda text: (-counts[text], text))[:MOST_CATEGORIES]
    if len(kept) < len(counts):
        warnings.append(f"of {len(counts):,} categories in {name!r} the {MOST_CATEGORIES} most frequent are kept")
    return Column(name, "categorical", tuple(sorted(kept)))
