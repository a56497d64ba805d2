"""Texts as ids, and what learns from them from scratch."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer

from autoxfer import Candidate, Fitted, Raw, Score, tokens
from autoxfer.dataset import Column, Schema
from autoxfer.encoding import decode, encode
from autoxfer.errors import InputError
from autoxfer.textnets import CompactText, LinearTerms, TfIdf
from autoxfer.tokens import Tokenizer, Vocabulary, words

TEXTS = ["the cat sat on the mat", "the dog sat", "a cat and a dog", "Who knows, who cares?", ""]


def schema(*tokenizers: Tokenizer) -> Schema:
    shape = (sum(each.length for each in tokenizers),)
    column = (Column("words", "text"),)
    if not tokenizers:
        return Schema("text", "classification", (), "str", ("a", "b"), column)
    return Schema("text", "classification", shape, "int32", ("a", "b"), column, tokenizers=tokenizers)


def test_words_are_lower_case_and_marks_stand_alone():
    assert words("Don't STOP, it\u2019s 3.5%!") == ["don't", "stop", ",", "it\u2019s", "3", ".", "5", "%", "!"]


def test_a_vocabulary_holds_the_words_of_most_texts_first_and_pairs_that_come_twice():
    found = Vocabulary.learn(["the cat sat", "the cat ran", "the dog ran"])
    assert found.words == ("the", "cat", "ran", "dog", "sat")
    assert found.pairs == ((1, 2),)  # "the cat"; a pair within one text alone says nothing of others
    assert Vocabulary.read(found.content) == found


def test_texts_are_filled_up_and_cut():
    own = Tokenizer("words", Vocabulary(("cat", "dog"), ()).content, 3)
    ids = own.encode(["dog cat", "cat fox cat dog dog", ""])
    assert ids.tolist() == [[2, 1, -1], [1, 0, 1], [-1, -1, -1]]
    assert ids.dtype == np.int32
    assert own.count(["dog cat", "cat fox cat dog dog", ""]).tolist() == [2, 5, 0]


def test_one_endless_text_does_not_lengthen_all_others():
    short, endless = ["a b c"] * 200, "a " * 400
    (own,) = tokens.fit([*short, endless], {})
    assert own.length == 64
    assert tokens.cut_texts([own], [*short, endless]) == [
        "1 of 201 train texts are cut to 64 tokens for learning from scratch"
    ]
    (own,) = tokens.fit([*short, "a " * 40], {})
    assert own.length == 40


def test_every_tokenizer_has_columns_of_its_own():
    other = Tokenizer("words", Vocabulary(("cat",), ()).content, 3)
    both = tokens.fit(TEXTS, {"zoo": other})
    assert [(each.source, each.length) for each in both] == [("", 6), ("zoo", 3)]
    assert (tokens.span(both), tokens.span(both, "zoo")) == ((0, 6), (6, 9))
    stored = encode(schema(*both), ["a cat"])
    assert stored.shape == (1, 9)
    assert stored[0, 6:].tolist() == [0, 1, -1]


def test_what_no_one_reads_is_not_tokenised_and_nothing_moves():
    both = tokens.fit(TEXTS, {"zoo": Tokenizer("words", Vocabulary(("cat",), ()).content, 3)})
    zoo = Tokenizer("tokenizers", "no JSON at all", 4, "zoo")
    left = tokens.without_unread((both[0], zoo), ())
    assert left[1] == Tokenizer("unused", "", 4, "zoo")
    assert encode(schema(*left), ["a cat"])[0, 6:].tolist() == [-1] * 4
    assert tokens.without_unread((both[0], zoo), ("zoo",)) == (both[0], zoo)


@pytest.mark.parametrize(
    "raw",
    [
        ["one two", ""],
        ("one two", None),
        np.array(["one two", ""]),
        np.array([["one two"], [""]], dtype=object),
        {"words": ["one two", float("nan")], "other": [1, 2]},
        [{"words": "one two"}, {"words": None}],
    ],
)
def test_texts_are_taken_as_users_have_them(raw):
    assert encode(schema(), raw).tolist() == ["one two", ""]


def test_a_frame_gives_its_column():
    frame = pd.DataFrame({"words": ["one two", None], "n": [1, 2]})
    assert encode(schema(), frame).tolist() == ["one two", ""]
    assert encode(schema(), frame["words"]).tolist() == ["one two", ""]


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ("one text", "expected a list of texts, found one str"),
        (3, "found one int"),
        ([], "at least one example"),
        (["a", 1], "expected texts, found 1 in example 1"),
        (np.zeros((2, 3)), "expected texts"),
        ({"other": ["a"]}, "expected the column 'words', found columns other"),
        ([{"other": "a"}], "expected the column 'words', found columns other"),
    ],
)
def test_what_is_no_text_is_refused(raw, told):
    with pytest.raises(InputError, match=told):
        encode(schema(), raw)


def test_ids_tell_their_words_again():
    (own,) = tokens.fit(TEXTS, {})
    raw = decode(schema(own), encode(schema(own), ["The cat, sat", "a zebra"]))
    assert raw == {"words": ["the cat , sat", "a \ufffd"]}
    assert np.array_equal(encode(schema(own), raw), encode(schema(own), ["The cat, sat", "a zebra"]))


def test_a_text_of_any_length_gets_one_answer():
    vocabulary = Vocabulary.learn(TEXTS)
    short, long = (Tokenizer("words", vocabulary.content, length).encode(TEXTS) for length in (6, 11))
    for architecture in (CompactText(len(vocabulary.words), 4), TfIdf(vocabulary)):
        torch.manual_seed(0)
        module = architecture(3).eval()
        if isinstance(module, LinearTerms):
            torch.nn.init.normal_(module.weight)
            module.idf.uniform_(1, 2)
            module.idf[-1] = 0.0
        one, other = module(torch.from_numpy(short)), module(torch.from_numpy(long))
        torch.testing.assert_close(one, other)
        assert one.isfinite().all()


class _Data:
    weights = None

    def __init__(self, ids, labels):
        self.ids, self.labels = ids, labels

    def __getitem__(self, name):
        return self.ids


class _Keeps:
    """A trainer that keeps every state it is offered."""

    def choose(self, candidate, states):
        self.states = list(states)
        return Fitted(self.states[-1][1], Score(0, 0, 0), notes={"chosen": self.states[-1][0]})


def solved(labels, n_outputs):
    vocabulary = Vocabulary.learn(TEXTS)
    ids = torch.from_numpy(Tokenizer("words", vocabulary.content, 6).encode(TEXTS))
    module = TfIdf(vocabulary)(n_outputs)
    trainer = _Keeps()
    fitted = module.solve(Candidate(module, (Raw(),)), _Data(ids, labels), trainer)
    module.load_state_dict(fitted.state, strict=False)
    return vocabulary, ids, module, trainer.states


def test_tf_idf_is_scikit_learns():
    vocabulary, ids, module, _ = solved(torch.tensor([0, 1, 0, 1, 0]), 2)
    terms = [*vocabulary.words, *(f"{vocabulary.words[i - 1]} {vocabulary.words[j - 1]}" for i, j in vocabulary.pairs)]
    naive = TfidfVectorizer(
        tokenizer=words, token_pattern=None, ngram_range=(1, 2), vocabulary=terms, sublinear_tf=True
    ).fit(TEXTS)
    expected = torch.from_numpy(naive.transform(TEXTS).toarray()).float()
    with torch.no_grad():
        module.weight[:-1] = torch.eye(len(terms), module.weight.shape[0] - 1)[:, : module.weight.shape[1]]
        for column in range(len(terms)):
            module.weight.zero_()
            module.bias.zero_()
            module.weight[column, 0] = 1.0
            torch.testing.assert_close(module(ids)[:, 0], expected[:, column], msg=terms[column])


@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 0], [0, 1, 2, 1, 0], [0, 3, 3, 0, 3]])
def test_logistic_regression_separates_what_can_be_told_apart(labels):
    _, ids, module, states = solved(torch.tensor(labels), 4 if 3 in labels else max(labels) + 1)
    strengths = [strength for strength, _ in states]
    assert strengths == sorted(strengths, reverse=True)
    with torch.no_grad():
        assert module(ids).argmax(1).tolist() == labels


def test_ridge_regression_fits_numbers():
    labels = torch.tensor([[1.0], [-1.0], [0.5], [0.2], [0.0]])
    _, ids, module, _ = solved(labels, 1)
    with torch.no_grad():
        torch.testing.assert_close(module(ids), labels, atol=0.02, rtol=0)


def test_a_vocabulary_is_plain_json():
    assert json.loads(Vocabulary.learn(TEXTS).content).keys() == {"words", "pairs"}
