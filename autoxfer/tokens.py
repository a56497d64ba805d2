"""Text as numbers: the ids of a source's own tokens, or of the words of the train split.

An encoded text is a row of ids, cut or filled up to one length; -1 stands where there is no token.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import chain, pairwise
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from autoxfer.errors import InputError

PADDING = -1
UNKNOWN = 0  # the id of every word that is not in the vocabulary
NO_WORD = "\ufffd"  # what is shown in its place
MOST_WORDS = 20_000
MOST_PAIRS = 20_000
LONGEST = 512  # words kept of one text
SHORT = 64  # tokens up to which the longest text sets the length; beyond, what nearly all texts fit into
NEARLY_ALL = 0.99
WORD = re.compile(r"\w+(?:['\u2019]\w+)*|[^\w\s]")


@final
@dataclass(frozen=True)
class Tokenizer:
    """Text -> ids. Plain data: it travels with whatever was trained on the ids."""

    kind: Literal["words", "tokenizers", "unused"]  # the target's own vocabulary, the library ``tokenizers``, no ids
    content: str = field(repr=False)  # JSON: a Vocabulary, or the library's tokenizer.json; empty where unused
    length: int  # tokens kept of one text
    source: str = ""  # the name of the source whose it is

    def encode(self, texts: Sequence[str]) -> NDArray[np.int32]:
        """Give ids (n, length)."""
        ids = np.full((len(texts), self.length), PADDING, dtype=np.int32)
        for row, found in zip(ids, self._ids(texts, self.length), strict=True):
            row[: len(found)] = found[: self.length]
        return ids

    def count(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Count each text's tokens, (n,), were it not cut."""
        return np.array([len(found) for found in self._ids(texts, None)], dtype=np.int64)

    def decode(self, ids: NDArray[np.int32]) -> list[str]:
        """Join the words that the first columns of (n, length or more) name."""
        known = (NO_WORD, *Vocabulary.read(self.content).words)
        return [" ".join(known[i] for i in row if i != PADDING) for row in ids[:, : self.length].tolist()]

    def _ids(self, texts: Sequence[str], length: int | None) -> list[list[int]]:
        if self.kind == "words":
            code = _codes(self.content)
            return [[code.get(word, UNKNOWN) for word in words(text)[:length]] for text in texts]
        if self.kind == "unused":
            return [[] for _ in texts]
        tokenizer = _tokenizer(self.content)
        if length is None:
            tokenizer.no_truncation()
        else:
            tokenizer.enable_truncation(length)
        return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


@final
@dataclass(frozen=True)
class Vocabulary:
    """What the train split's texts are made of. The id of ``words[k]`` is k + 1."""

    words: tuple[str, ...]  # the most frequent first
    pairs: tuple[tuple[int, int], ...]  # ids of neighbours that stand in two texts or more, in ascending order

    @classmethod
    def learn(cls, texts: Sequence[str]) -> Vocabulary:
        """Take the words and pairs of neighbouring words that most texts hold."""
        split = [words(text) for text in texts]
        count = Counter(chain.from_iterable(set(text) for text in split))
        kept = sorted(count, key=lambda word: (-count[word], word))[:MOST_WORDS]
        code = {word: index for index, word in enumerate(kept, 1)}
        ids = [[code.get(word, UNKNOWN) for word in text] for text in split]
        together = Counter(chain.from_iterable(set(pairwise(text)) for text in ids))
        often = [pair for pair, n in together.items() if n > 1 and UNKNOWN not in pair]
        return cls(tuple(kept), tuple(sorted(sorted(often, key=lambda pair: (-together[pair], pair))[:MOST_PAIRS])))

    @classmethod
    def read(cls, content: str) -> Vocabulary:
        """Read what ``content`` has written."""
        plain = json.loads(content)
        return cls(tuple(plain["words"]), tuple((first, second) for first, second in plain["pairs"]))

    @cached_property
    def content(self) -> str:
        """The vocabulary as JSON."""
        return json.dumps({"words": self.words, "pairs": self.pairs}, ensure_ascii=False)


def words(text: str) -> list[str]:
    """Split a text into lower-case words and marks of punctuation."""
    return WORD.findall(text.lower())


def fit(texts: Sequence[str], others: Mapping[str, Tokenizer]) -> tuple[Tokenizer, ...]:
    """Make the tokenizers of a task from its train texts: its own words first, then each source's, by its name.

    A source's ``length`` is the most that it can read; what nearly all texts need is kept of it.
    """
    own = Tokenizer("words", Vocabulary.learn(texts).content, LONGEST)
    named = [own, *(replace(tokenizer, source=name) for name, tokenizer in others.items())]
    return tuple(replace(each, length=_fitting(each.count(texts), each.length)) for each in named)


def cut_texts(tokenizers: Sequence[Tokenizer], texts: Sequence[str]) -> list[str]:
    """Say of each tokenizer how many texts are longer than what is kept of them, where any is."""
    told = []
    for each in tokenizers:
        n = int((each.count(texts) > each.length).sum())
        if n:
            whose = f"source {each.source!r}" if each.source else "learning from scratch"
            told.append(f"{n:,} of {len(texts):,} train texts are cut to {each.length} tokens for {whose}")
    return told


def without_unread(tokenizers: Sequence[Tokenizer], sources: Collection[str]) -> tuple[Tokenizer, ...]:
    """Drop what only sources other than these would read; every column keeps its place."""
    return tuple(
        each if each.kind == "words" or each.source in sources else replace(each, kind="unused", content="")
        for each in tokenizers
    )


def span(tokenizers: Sequence[Tokenizer], source: str = "") -> tuple[int, int]:
    """Find the stored columns, from and to, of a source's ids, or of the target's own words."""
    start = 0
    for tokenizer in tokenizers:
        if tokenizer.source == source:
            return start, start + tokenizer.length
        start += tokenizer.length
    raise ValueError(f"no tokenizer of source {source!r}")


def _fitting(counts: NDArray[np.int64], most: int) -> int:
    longest = int(counts.max(initial=1))
    needed = longest if longest <= SHORT else max(SHORT, int(np.quantile(counts, NEARLY_ALL)))
    return max(1, min(most, needed))


@cache
def _codes(content: str) -> Mapping[str, int]:
    return {word: index for index, word in enumerate(Vocabulary.read(content).words, 1)}


@cache
def _tokenizer(content: str) -> Any:
    try:
        from tokenizers import Tokenizer as Fast  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InputError('the package tokenizers (pip install "autoxfer[text]")', "none", "text") from error
    tokenizer = Fast.from_str(content)
    tokenizer.no_padding()
    return tokenizer
