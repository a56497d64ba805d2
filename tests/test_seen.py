"""A source may not have learned from the examples that choose and judge, however they are stored by now."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from autoxfer import seen
from autoxfer.dataset import Dataset, DataSpec, Schema
from autoxfer.errors import InputError
from autoxfer.hashing import inputs, joined, labels
from autoxfer.plugins import load_plugins
from autoxfer.seen import Sketch, bare, check, read, trained_on

ROWS = [(f"{20 + k}.25", ("Ulm", "Bonn")[k % 2], f"{k % 2}.5") for k in range(40)]


def vectors(n: int = 400, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    schema = Schema("vector", "classification", (3,), "float32", ("no", "yes"))
    return Dataset("v", schema, rng.normal(size=(n, 3)).astype(np.float32), rng.integers(0, 2, n))


def pictures(examples: NDArray[np.uint8]) -> Dataset:
    schema = Schema("image", "classification", examples.shape[1:], "uint8", ("no", "yes"))
    return Dataset("p", schema, examples, np.arange(len(examples)) % 2)


def quarters(n: int, own: int = 0) -> list[tuple[str, NDArray[np.int64]]]:
    """Train, tune, guard and test; ``own`` rows at the start belong to train alone."""
    names, rest = ("train", "tune", "guard", "test"), np.arange(own, n)
    parts = {name: rest[k::4] for k, name in enumerate(names)}
    return [(name, np.union1d(rows, np.arange(own)) if name == "train" else rows) for name, rows in parts.items()]


def learned(dataset: Dataset, rows: Any = None) -> dict[str, tuple[Sketch, ...]]:
    return {"old": Sketch.take(dataset, np.arange(len(dataset.labels)) if rows is None else np.asarray(rows))}


def table(tmp_path: Path, rows: Sequence[Sequence[str]], header: str = "age,town,size,label", **given: Any) -> Dataset:
    path = tmp_path / "table.csv"
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]))
    spec = DataSpec("table.csv", target="label", directory=tmp_path, **given)
    return load_plugins().reader_for(spec).read(spec)


def labelled(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [(*row, "yes" if k % 3 else "no") for k, row in enumerate(rows)]


def refusal(dataset: Dataset, sketches: dict[str, tuple[Sketch, ...]], parts: Any = None) -> str:
    with pytest.raises(InputError) as caught:
        check(dataset, parts or quarters(len(dataset.labels)), sketches)
    assert caught.value.where == "sources.old"
    return caught.value.found


def test_the_same_examples_again_are_refused_and_others_are_not() -> None:
    data = vectors()
    found = refusal(data, learned(data))
    assert found == "old, which learned from about 100% of tune and 100% of guard and 100% of test"
    assert check(data, quarters(400), learned(vectors(seed=1))) == []
    assert check(data, quarters(400), {"silent": ()}) == []


def test_one_half_to_learn_from_and_the_other_to_judge_by() -> None:
    data = vectors()
    assert check(data, quarters(400, own=200), learned(data, range(200))) == []
    assert "50% of guard" in refusal(data, learned(data, range(200)))


@pytest.mark.parametrize("split", ["tune", "guard", "test"])
def test_each_split_that_chooses_or_judges_is_looked_at(split: str) -> None:
    data = vectors()
    rows = dict(quarters(400))[split]
    assert refusal(data, learned(data, rows)) == f"old, which learned from about 100% of {split}"
    assert check(data, quarters(400), learned(data, rows[:5])) == [
        f"source old has learned from examples that equal about 5 of 100 in {split}"
    ]
    assert "about 6% of" in refusal(data, learned(data, rows[:6]))


def test_over_folds_all_but_test_judges() -> None:
    data = vectors()
    parts = [("guard", np.arange(k, 300, 3)) for k in range(3)] + [("test", np.arange(300, 400))]
    with pytest.raises(InputError, match=r"other data: with folds.*about 33% of guard$"):
        check(data, parts, learned(data, range(100)))


def test_other_labels_for_the_same_inputs_are_another_task() -> None:
    data = vectors()
    other = replace(data, schema=replace(data.schema, classes=("left", "right")))
    assert check(other, quarters(400), learned(data)) == []
    numbers = replace(data, schema=replace(data.schema, task="regression", classes=()), labels=np.arange(400.0))
    assert check(numbers, quarters(400), learned(data)) == []
    flipped = replace(data, labels=1 - data.labels)
    assert check(flipped, quarters(400), learned(data)) == []


def test_labels_are_known_by_name_and_number() -> None:
    data = vectors(8)
    turned = replace(data, schema=replace(data.schema, classes=("yes", "no")), labels=1 - data.labels)
    assert np.array_equal(labels(data)[""], labels(turned)[""])
    digits = replace(data, schema=replace(data.schema, classes=("0", "1")))
    numbers = replace(data, schema=replace(data.schema, task="regression", classes=()), labels=data.labels * 1.0)
    assert np.array_equal(labels(digits)[""], labels(numbers)[""])
    one = joined(inputs(data, "vector", ()), labels(data)[""])
    assert len(set(one.tolist())) == 8
    assert not np.isin(one, joined(inputs(data, "vector", ()), labels(numbers)[""])).any()


def several(task: Any, names: tuple[str, ...], answers: NDArray[Any]) -> Dataset:
    data = vectors()
    outputs: dict[str, Any] = (
        {"classes": names, "targets": ()} if task == "multilabel" else {"classes": (), "targets": names}
    )
    return replace(data, schema=replace(data.schema, task=task, **outputs), labels=answers.astype(np.float32))


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_of_several_labels_or_numbers_each_is_known_by_itself(task: str) -> None:
    rng = np.random.default_rng(5)
    answers = rng.integers(0, 2, (400, 3)) if task == "multilabel" else rng.normal(size=(400, 3))
    known = learned(several(task, ("a", "b", "c"), answers))
    assert [sketch.output for sketch in known["old"]] == ["a", "b", "c"]
    assert "100% of guard" in refusal(several(task, ("c", "z"), answers[:, [2, 0]]), known)
    alone = replace(vectors(), labels=answers[:, 1])
    kind: dict[str, Any] = {"task": "regression", "classes": ()}
    if task == "multilabel":
        alone, kind = replace(alone, labels=answers[:, 1]), {"task": "classification", "classes": ("0", "1")}
    alone = replace(alone, schema=replace(alone.schema, **kind))
    assert "100% of guard" in refusal(alone, known)
    assert "100% of guard" in refusal(several(task, ("a", "b", "c"), answers), learned(alone))
    others = rng.permutation(answers)
    assert check(several(task, ("a", "b", "c"), others), quarters(400), known) == []
    assert check(replace(alone, labels=others[:, 0].astype(alone.labels.dtype)), quarters(400), known) == []


@pytest.mark.parametrize("n", [400, 20_000])
@pytest.mark.parametrize("rare", [0.5, 0.02])
def test_another_task_may_have_classes_of_the_same_names(n: int, rare: float) -> None:
    rng = np.random.default_rng(3)
    data = vectors(n)
    flags, others = ((rng.random(n) < rare).astype(np.int64) for _ in range(2))
    one, other = (replace(data, labels=answers) for answers in (flags, others))
    assert check(other, quarters(n), learned(one)) == []
    assert "of guard" in refusal(one, learned(one))
    mended = replace(one, labels=np.where(rng.random(n) < 0.1 * rare, 1 - flags, flags))  # some labels were corrected
    assert "of guard" in refusal(mended, learned(one))


def test_a_table_that_has_grown_is_known_whatever_its_codes_and_order_are(tmp_path: Path) -> None:
    old = table(tmp_path, labelled(ROWS))
    sketch = learned(old)
    more = [(f"{age}.25", "Aachen", "7.25") for age in range(60, 70)]  # the first category now, and the others move
    grown = table(tmp_path, labelled([*ROWS, *more]))
    assert old.schema.columns != grown.schema.columns
    assert "83% of guard" in refusal(grown, sketch)
    mixed_up = [
        (label, size, town, "x" * (k % 2) or "y", age) for k, (age, town, size, label) in enumerate(labelled(ROWS))
    ]
    wider = table(tmp_path, mixed_up, "label,size,town,new,age")
    assert "100% of guard" in refusal(wider, sketch)
    words = [(age, town, size if k else "small", label) for k, (age, town, size, label) in enumerate(labelled(ROWS))]
    assert table(tmp_path, words).schema.columns[2].kind != old.schema.columns[2].kind
    assert "100% of guard" in refusal(table(tmp_path, words), sketch)
    later = table(tmp_path, [(f"{float(age) + 40}", *rest) for age, *rest in labelled(ROWS)])
    assert check(later, quarters(40), sketch) == []


def test_a_gap_stays_a_gap(tmp_path: Path) -> None:
    gaps = [("" if k % 2 else age, town if k % 3 else "", size) for k, (age, town, size) in enumerate(ROWS)]
    old = table(tmp_path, labelled(gaps))
    again = table(tmp_path, [row[::-1] for row in labelled(gaps)], "label,size,town,age")
    assert "100% of guard" in refusal(again, learned(old))


def test_rows_that_are_equal_by_chance_are_no_leak(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def rare(n: int) -> list[tuple[str, ...]]:
        return [(f"{rng.integers(4)}", rng.choice(["Ulm", "Bonn"]), "1.5" if k % 2 else "2.5", "yes") for k in range(n)]

    old = table(tmp_path, [*rare(200), ("9", "Ulm", "1.5", "no")])
    new = table(tmp_path, [*rare(200), ("8", "Bonn", "1.5", "no")])
    (told,) = check(new, quarters(201), learned(old))
    assert re.fullmatch(r"source old has learned from examples that equal about .* of 5. in tune and .* in test", told)
    partly = table(tmp_path, [*rare(40), *labelled(ROWS)])  # half of these stand once: they are a leak
    assert "100% of guard" in refusal(partly, learned(partly))


def test_copies_within_a_split_are_no_excuse(tmp_path: Path) -> None:
    twice = table(tmp_path, [row for row in labelled(ROWS) for _ in range(2)])
    parts = [(name, np.sort(np.concatenate([2 * rows, 2 * rows + 1]))) for name, rows in quarters(40)]
    assert "100% of guard" in refusal(twice, learned(twice), parts)


def test_pictures_are_known_in_grey_and_colour_in_memory_and_on_disk(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (80, 6, 5)).astype(np.uint8)
    known = learned(pictures(grey))
    for stored in (grey[..., None], np.repeat(grey[..., None], 3, axis=3)):
        assert "100% of guard" in refusal(pictures(stored), known)
    np.save(tmp_path / "mapped.npy", grey)
    assert "100% of guard" in refusal(pictures(np.load(tmp_path / "mapped.npy", mmap_mode="r")), known)
    colour = np.repeat(grey[..., None], 3, axis=3)
    colour[:, 3, 2, 1] ^= 1
    assert check(pictures(colour), quarters(80), known) == []


def test_pictures_of_files_are_known_though_the_set_is_of_another_size_by_now(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)

    def draw(names: range, side: int) -> None:
        for k in names:
            place = tmp_path / "set" / ("ant", "bee")[k % 2]
            place.mkdir(parents=True, exist_ok=True)
            image.fromarray(rng.integers(0, 256, (side + k % 3, side, 3)).astype(np.uint8)).save(place / f"{k}.png")

    def get() -> Dataset:
        spec = DataSpec("set", directory=tmp_path)
        return load_plugins().reader_for(spec).read(spec)

    draw(range(16), 8)
    old = get()
    listed = trained_on(old, np.arange(16))
    assert [each["kind"] for each in listed] == ["image", "file"]
    draw(range(16, 48), 12)
    grown = get()
    assert grown.schema.shape != old.schema.shape
    assert "% of guard" in refusal(grown, {"old": read({"trained_on": {"sketches": listed}}, "here")})
    assert check(grown, quarters(48), {"old": learned(old)["old"][:1]}) == []  # the pixels themselves are others
    rows = [f"set/{('ant', 'bee')[k % 2]}/{k}.png,{('ant', 'bee')[k % 2]}" for k in range(48)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *rows]))
    spec = DataSpec("list.csv", target="label", directory=tmp_path)
    table = load_plugins().reader_for(spec).read(spec)
    assert "% of guard" in refusal(table, {"old": read({"trained_on": {"sketches": listed}}, "here")})


def test_texts_are_known_alone_and_beside_columns(tmp_path: Path) -> None:
    rows = [(f"the {k}th word of it all is number {k * k}", f"{k}.25", "no" if k % 2 else "yes") for k in range(40)]
    texts = table(tmp_path, [(text, label) for text, _, label in rows], "text,label")
    numbers = table(tmp_path, [(number, label) for _, number, label in rows], "size,label")
    mixed = table(tmp_path, rows, "text,size,label")
    assert [data.schema.modality for data in (texts, numbers, mixed)] == ["text", "table", "mixed"]
    for old, new in ((texts, texts), (texts, mixed), (numbers, mixed), (mixed, mixed)):
        assert "100% of guard" in refusal(new, learned(old))
    assert check(texts, quarters(40), learned(numbers)) == []
    others = table(tmp_path, [(f"{text} again", "7", label) for text, _, label in rows], "text,size,label")
    assert check(others, quarters(40), learned(texts)) == []
    assert check(others, quarters(40), learned(mixed)) == []


def test_a_sketch_of_many_estimates_the_share_within_a_few_points() -> None:
    data = vectors(20_000)
    (sketch,) = Sketch.take(data, np.arange(0, 20_000, 3))
    assert (len(sketch.hashes), sketch.examples) == (seen.KEPT, 6_667)
    shares = [int(share) for share in re.findall(r"(\d+)% of", refusal(data, {"old": (sketch,)}))]
    assert len(shares) == 3
    assert all(abs(share - 33.3) < 4 for share in shares)
    assert check(data, quarters(20_000), learned(vectors(20_000, seed=1))) == []


def test_a_sketch_comes_back_from_json_and_weighs_little() -> None:
    data = vectors(5_000)
    plain = json.loads(json.dumps(trained_on(data, np.arange(5_000))))
    assert len(json.dumps(plain)) < 50_000
    (found,) = read({"trained_on": {"sketches": plain}}, "here")
    assert np.array_equal(found.hashes, Sketch.take(data, np.arange(5_000))[0].hashes)
    assert not found.whole
    assert (found.kind, found.columns, found.examples) == ("vector", (), 5_000)


def test_what_a_source_had_learned_from_is_passed_on_once() -> None:
    first, second = vectors(), vectors(seed=1)
    (before,) = learned(first)["old"]
    listed = trained_on(second, np.arange(400), [before, before, *Sketch.take(second, np.arange(400))])
    assert len(listed) == 2
    inherited = read({"trained_on": {"sketches": listed}}, "here")
    for data in (first, second):
        assert "100% of guard" in refusal(data, {"old": inherited})


@pytest.mark.parametrize("card", [{}, {"trained_on": "ImageNet"}, {"trained_on": {"data": "x"}}, {"trained_on": None}])
def test_a_card_that_says_nothing_is_not_checked_and_stays_as_it_is(card: dict[str, Any]) -> None:
    assert read(card, "here") == ()
    assert bare(card) == card


def test_a_card_is_shown_without_what_nobody_can_read() -> None:
    assert bare({"name": "x", "trained_on": {"seed": 3, "sketches": []}}) == {"name": "x", "trained_on": {"seed": 3}}
    assert bare({"name": "x", "trained_on": {"sketches": []}}) == {"name": "x"}


SPOILT: dict[str, Callable[[dict[str, Any]], Any]] = {
    "cut": lambda plain: {**plain, "hashes": plain["hashes"][:-8] + "AA=="},
    "no base64": lambda plain: {**plain, "hashes": "?"},
    "no hashes": lambda plain: {"kind": "vector"},
    "no kind": lambda plain: {**plain, "kind": "sound"},
    "a number": lambda plain: 3,
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_damaged_sketch_is_refused_rather_than_ignored(how: str) -> None:
    (plain,) = trained_on(vectors(), np.arange(400))
    with pytest.raises(InputError, match=r"trained_on\.sketches, as autoxfer writes them"):
        read({"trained_on": {"sketches": [SPOILT[how](plain)]}}, "source 'old'")
