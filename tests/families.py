"""Tiny members of many families of networks, each as a source with a tiny task to be used on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autoxfer import Source, SourceSpec
from autoxfer.testing.scenes import Scene, scene_of
from autoxfer.testing.texts import FILLERS, TELLING

SIDE = 32
CLASSES = ["a", "b", "c", "d", "e"]  # of the heads; the first three are those of the tasks

VIT = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8, "img_size": SIDE}
TIMM: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": ("resnet18", {"channels": (4, 8, 8, 16), "stem_width": 4, "layers": (1, 2, 1, 1)}),
    "densenet": ("densenet121", {"growth_rate": 4, "block_config": (2, 2, 2)}),
    "efficientnet": ("test_efficientnet", {}),
    "convnext": ("convnext_atto", {"depths": (1, 2, 1, 1), "dims": (4, 8, 8, 16)}),
    "vit": ("vit_tiny_patch16_224", VIT),
    "vit_registers": ("vit_small_patch14_reg4_dinov2", VIT),
    "vit_averaged": ("vit_base_patch16_gap_224", VIT),
    "eva": ("eva02_tiny_patch14_224", VIT),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"embed_dim": 8, "depths": (1, 2), "num_heads": (1, 2), "window_size": 4, "img_size": SIDE},
    ),
    "xcit": ("xcit_nano_12_p8_224", {**VIT, "cls_attn_layers": 1}),
    "maxvit": ("test_maxvit", {"embed_dim": (32, 32), "depths": (1, 1), "stem_width": (8, 8), "img_size": SIDE}),
}
SIZES = {"vocab_size": 32, "max_position_embeddings": 24}
USUAL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, **SIZES}
TEXT: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", USUAL),
    "roberta": ("RobertaConfig", {**USUAL, "pad_token_id": 0}),
    "distilbert": ("DistilBertConfig", {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, **SIZES}),
    "gpt2": ("GPT2Config", {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24, "vocab_size": 32}),
    "llama": ("LlamaConfig", USUAL),
}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


class Plain(nn.Sequential):
    """As torchvision's AlexNet and VGG are laid out: features, and a classifier of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(2)),
        )
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(32, 16), nn.ReLU(inplace=True), nn.Linear(16, 5))


class Awkward(nn.Module):
    """Branches, functional operations, a bare parameter, an if, and an attention of torch's own."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 5, 2, 2)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))
        self.weight = nn.Parameter(torch.randn(8, 8, 3, 3) / 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, 5)

    def forward(self, x: Tensor, twice: bool = False) -> Tensor:
        x = torch.cat([self.left(x).relu(), functional.gelu(self.right(x))], 1) * self.scale
        x = functional.max_pool2d(functional.conv2d(x, self.weight, padding=1).relu_(), 4)
        if twice:
            x = x + x
        x = x.flatten(2).transpose(1, 2)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        return self.out(x.mean(1))


class Encoder(nn.Module):
    """torch's own transformer encoder over patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 8, 8)
        layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


def layers() -> nn.Sequential:
    """A plain MLP over vectors."""
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU())


def signal() -> nn.Sequential:
    """Convolutions along a vector."""
    return nn.Sequential(
        *(nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU()),
        *(nn.Conv1d(4, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 5)),
    )


def mixer() -> nn.Module:
    """timm's, at a size that its names do not offer."""
    timm = pytest.importorskip("timm")
    return timm.models.mlp_mixer.MlpMixer(5, SIDE, patch_size=8, num_blocks=2, embed_dim=16)


def torchvision_swin() -> nn.Module:
    torchvision = pytest.importorskip("torchvision")
    return torchvision.models.SwinTransformer([4, 4], 8, [1, 2], [1, 2], [4, 4], num_classes=5)


def torchvision_vit() -> nn.Module:
    torchvision = pytest.importorskip("torchvision")
    return torchvision.models.VisionTransformer(SIDE, 8, 2, 2, 16, 24, num_classes=5)


PLAIN: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "cnn": (Plain, (3, SIDE, SIDE)),
    "resnet_cifar": (lambda: networks.CifarResNet(1, 5), (3, SIDE, SIDE)),
    "awkward": (Awkward, (3, SIDE, SIDE)),
    "torch_encoder": (Encoder, (3, SIDE, SIDE)),
    "mixer": (mixer, (3, SIDE, SIDE)),
    "torchvision_swin": (torchvision_swin, (3, SIDE, SIDE)),
    "torchvision_vit": (torchvision_vit, (3, SIDE, SIDE)),
    "mlp": (layers, (6,)),
    "conv1d": (signal, (6,)),
}
FAMILIES = (*TIMM, *TEXT, *PLAIN)


def make(family: str, folder: Path) -> Scene:
    """Make a member of a family a source, and a task for it; weights and what a hub would hold go into ``folder``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        source = _source(family, folder)
    modality = "text" if family in TEXT else "vector" if len(source.input_shape) == 1 else "image"
    return scene_of(modality, "classification", [source])  # type: ignore[arg-type]


def _source(family: str, folder: Path) -> Source:
    if family in TIMM:
        return _timm(family, folder)
    if family in TEXT:
        return _text(family, folder)
    factory, shape = PLAIN[family]
    classes = () if family == "mlp" else CLASSES
    return Source.from_network(family, factory, factory(), input_shape=shape, classes=classes)


def _timm(family: str, folder: Path) -> Source:
    timm = pytest.importorskip("timm")
    from autoxfer_builtins.timm_source import TimmLoader  # noqa: PLC0415 - heavy
    from safetensors.torch import save_file  # noqa: PLC0415

    name, options = TIMM[family]
    network = timm.create_model(name, num_classes=5, **options)
    save_file(network.state_dict(), folder / f"{family}.safetensors")
    given: dict[str, Any] = {"classes": CLASSES} | ({} if "img_size" in options else {"shape": [3, SIDE, SIDE]})
    weights = folder / f"{family}.safetensors"
    return TimmLoader().load(SourceSpec(family, f"timm:{name}", weights, options=options, input=given))


def _text(family: str, folder: Path) -> Source:
    transformers = pytest.importorskip("transformers")
    from autoxfer_builtins.hf_source import HuggingFaceLoader  # noqa: PLC0415 - heavy
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415

    name, sizes = TEXT[family]
    transformers.AutoModel.from_config(getattr(transformers, name)(**sizes)).save_pretrained(folder / family)
    words = {word: index for index, word in enumerate((*SPECIAL, *FILLERS, *TELLING))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / family / "tokenizer.json"))
    return HuggingFaceLoader().load(SourceSpec(family, f"hf:{folder / family}"))
