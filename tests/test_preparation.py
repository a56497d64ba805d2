"""What preparation promises: units, statistics from train alone, the same numbers once exported."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from autoxfer.dataset import Column, Schema
from autoxfer.errors import InputError
from autoxfer.preparation import Standardise, encode, prepare

SCHEMAS = {
    "grey": Schema("image", "classification", (6, 5), "uint8", ("a", "b")),
    "grey channel": Schema("image", "classification", (6, 5, 1), "uint8", ("a", "b")),
    "colour": Schema("image", "classification", (6, 5, 3), "uint8", ("a", "b")),
    "vector": Schema("vector", "regression", (7,), "float32"),
    "table": Schema(
        "table",
        "regression",
        (3,),
        "float32",
        columns=(Column("age", "numeric"), Column("job", "categorical", ("cook", "smith")), Column("pay", "numeric")),
    ),
}


def stored(schema, n, seed=0):
    rng = np.random.default_rng(seed)
    if schema.modality == "image":
        return rng.integers(0, 256, (n, *schema.shape), dtype=np.uint8)
    if schema.modality == "vector":
        return rng.normal(3, 2, (n, *schema.shape)).astype(np.float32)
    table = np.stack([rng.normal(40, 9, n), rng.integers(0, 2, n), rng.exponential(5, n)], axis=1).astype(np.float32)
    table[rng.random(table.shape) < 0.2] = np.nan
    return table


def natural_slowly(schema, example, medians):
    """One example's natural form, element by element."""
    if schema.modality == "image":
        image = example if example.ndim == 3 else example[..., None]
        return np.array([[[image[y, x, c] / 255 for x in range(5)] for y in range(6)] for c in range(image.shape[2])])
    if schema.modality == "vector":
        return example
    values = []
    for column, cell, median in zip(schema.columns, example, medians, strict=True):
        if column.kind == "categorical":
            values += [float(cell == code) for code in range(len(column.categories))]
        else:
            values.append(median if np.isnan(cell) else cell)
    return np.array(values)


@pytest.mark.parametrize("name", SCHEMAS)
def test_unpack_and_standardise_agree_with_a_loop(name):
    schema, train, seen = SCHEMAS[name], stored(SCHEMAS[name], 50), stored(SCHEMAS[name], 9, seed=1)
    preparation = prepare(schema, train)
    medians = np.nanmedian(train, axis=0) if schema.modality == "table" else None
    slowly = np.stack([natural_slowly(schema, example, medians) for example in train])
    natural = preparation.unpack(torch.from_numpy(seen))
    assert natural.dtype == torch.float32
    assert natural.shape == (9, *preparation.natural_shape)
    expected = np.stack([natural_slowly(schema, example, medians) for example in seen])
    np.testing.assert_allclose(natural.numpy(), expected, rtol=1e-6)
    axes = (0, 2, 3) if schema.modality == "image" else (0,)
    mean, deviation = slowly.mean(axis=axes, keepdims=True), slowly.std(axis=axes, keepdims=True)
    np.testing.assert_allclose(preparation.standardise(natural).numpy(), (expected - mean) / deviation, atol=2e-5)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_exported_program_gives_the_same_bits_for_any_batch(name):
    schema = SCHEMAS[name]
    preparation = prepare(schema, stored(schema, 50))
    network = nn.Sequential(preparation.unpack, preparation.standardise).eval()
    batch = torch.export.Dim("batch", min=1, max=1024)
    example = torch.from_numpy(stored(schema, 2))
    program = torch.export.export(network, (example,), dynamic_shapes=({0: batch},)).module()
    for n in (1, 3, 100):
        seen = torch.from_numpy(stored(schema, n, seed=n))
        assert torch.equal(program(seen), network(seen))


@pytest.mark.parametrize("name", SCHEMAS)
def test_statistics_travel_as_float32_buffers_and_nothing_is_trainable(name):
    preparation = prepare(SCHEMAS[name], stored(SCHEMAS[name], 20))
    buffers = dict(preparation.standardise.named_buffers())
    assert set(buffers) == {"mean", "deviation"}
    assert all(buffer.dtype == torch.float32 for buffer in buffers.values())
    assert not list(preparation.unpack.parameters()) + list(preparation.standardise.parameters())


def test_what_does_not_vary_becomes_zero():
    schema = Schema("vector", "regression", (3,), "float32")
    train = np.stack([np.full(40, 12345.678), np.zeros(40), np.arange(40)], axis=1).astype(np.float32)
    out = prepare(schema, train).standardise(torch.from_numpy(train))
    assert torch.equal(out[:, :2], torch.zeros(40, 2))
    assert torch.isfinite(out).all()


def test_a_deviation_that_float32_cannot_resolve_is_not_divided_by():
    module = Standardise(np.array([1e6]), np.array([0.06]))
    assert module.deviation.item() == 1.0


def test_a_column_without_any_value_in_train_reads_zero():
    train = np.full((5, 3), np.nan, dtype=np.float32)
    natural = prepare(SCHEMAS["table"], train).unpack(torch.from_numpy(train))
    assert torch.equal(natural, torch.zeros(5, 4))


def test_more_images_than_one_chunk_are_counted_once_each():
    schema = SCHEMAS["colour"]
    images = stored(schema, 2500)
    module = prepare(schema, images).standardise
    assert module.mean.flatten().numpy() == pytest.approx(images.mean(axis=(0, 1, 2)) / 255, rel=1e-6)
    assert module.deviation.flatten().numpy() == pytest.approx(images.std(axis=(0, 1, 2)) / 255, rel=1e-6)


def test_no_train_example_is_an_error():
    with pytest.raises(ValueError, match="at least one train example"):
        prepare(SCHEMAS["vector"], stored(SCHEMAS["vector"], 0))


def test_stored_images_and_vectors_encode_to_themselves():
    for name in ("grey", "grey channel", "colour", "vector"):
        batch = stored(SCHEMAS[name], 4)
        again = encode(SCHEMAS[name], batch)
        assert again.dtype == batch.dtype
        assert np.array_equal(again, batch)
        assert np.array_equal(encode(SCHEMAS[name], batch.tolist()), batch)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.int64, np.uint16])
def test_whole_numbers_are_pixels_whatever_type_carries_them(kind):
    batch = stored(SCHEMAS["grey"], 4)
    batch[0, 0, :2] = 0, 255
    again = encode(SCHEMAS["grey"], batch.astype(kind))
    assert again.dtype == np.uint8
    assert np.array_equal(again, batch)
    assert np.array_equal(encode(SCHEMAS["grey"], batch.astype(kind).tolist()), batch)


@pytest.mark.parametrize(
    ("value", "told"), [(0.5, "0.5 among them"), (np.nan, "nan among"), (256.0, "values 0.0..256.0")]
)
def test_floats_that_are_no_pixels_are_refused_by_their_value(value, told):
    batch = np.zeros((2, 6, 5))
    batch[1, 2, 3] = value
    with pytest.raises(InputError, match=told):
        encode(SCHEMAS["grey"], batch)


def test_grey_images_may_carry_their_channel_or_not():
    batch = stored(SCHEMAS["grey"], 4)
    assert np.array_equal(encode(SCHEMAS["grey"], batch[..., None]), batch)
    assert np.array_equal(encode(SCHEMAS["grey channel"], batch), batch[..., None])


def test_a_table_may_come_in_five_forms():
    pandas = pytest.importorskip("pandas")
    rows = [[31, "smith", None], ["40.5", "baker", 2.5], [None, "", "7"]]
    expected = np.array([[31, 1, np.nan], [40.5, np.nan, 2.5], [np.nan, np.nan, 7]], dtype=np.float32)
    columns = dict(zip(("age", "job", "pay"), map(list, zip(*rows, strict=True)), strict=True))
    records = [dict(zip(columns, row, strict=True)) for row in rows]
    frame = pandas.DataFrame(columns).assign(stranger=1)[["stranger", "pay", "job", "age"]]
    nullable = pandas.DataFrame({**columns, "age": pandas.array([31, 40.5, None], dtype="Float64")})
    for raw in (rows, columns, records, frame, nullable, np.array(rows, dtype=object)):
        np.testing.assert_array_equal(encode(SCHEMAS["table"], raw), expected)


def test_categories_are_known_whatever_type_carries_them():
    schema = Schema("table", "regression", (1,), "float32", columns=(Column("c", "categorical", ("1", "2", "True")),))
    raw = {"c": [1, 2.0, "1", " 2 ", True, "true", np.float32(1), float("nan"), "NA", None, 3]}
    expected = [0, 1, 0, 1, 2, 2, 0, np.nan, np.nan, np.nan, np.nan]
    np.testing.assert_array_equal(encode(schema, raw)[:, 0], np.array(expected, dtype=np.float32))


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("grey", np.zeros((6, 5), np.uint8)),
        ("grey", np.zeros((2, 7, 5), np.uint8)),
        ("grey", np.zeros((2, 6, 5, 3), np.uint8)),
        ("grey", np.zeros((0, 6, 5), np.uint8)),
        ("grey", np.full((2, 6, 5), 0.5)),
        ("grey", np.full((2, 6, 5), -1.0)),
        ("grey", np.full((2, 6, 5), np.inf)),
        ("grey", np.full((2, 6, 5), 256)),
        ("grey", np.full((2, 6, 5), -1)),
        ("grey", [[1, 2], [3]]),
        ("grey", "a picture"),
        ("colour", np.zeros((2, 3, 6, 5), np.uint8)),
        ("vector", np.zeros(7)),
        ("vector", np.zeros((2, 8))),
        ("vector", np.full((2, 7), np.nan)),
        ("vector", np.full((2, 7), 1e39)),
        ("vector", np.full((2, 7), "1")),
        ("vector", np.full((2, 7), None)),
        ("table", {"age": [1], "job": ["cook"]}),
        ("table", {"age": [1, 2], "job": ["cook"], "pay": [1]}),
        ("table", {"age": ["young"], "job": ["cook"], "pay": [1]}),
        ("table", {"age": [float("inf")], "job": ["cook"], "pay": [1]}),
        ("table", {"age": [], "job": [], "pay": []}),
        ("table", np.zeros((2, 3), np.float32)),
        ("table", [[1, "cook"]]),
        ("table", [[1, "cook", 2], [1, "cook"]]),
        ("table", []),
        ("table", 5),
        ("table", "age"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(name, raw):
    with pytest.raises(InputError):
        encode(SCHEMAS[name], raw)
