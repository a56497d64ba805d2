"""A source from timm: ``timm:NAME``, with the weights of a local file or of timm's own hub."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from autoxfer import InputError, Source, SourceLoader, SourceSpec, hookimpl
from autoxfer_builtins.hub import quick_to_give_up, why
from autoxfer_builtins.weights import PREFIXES, fit_weights, locate, read_card, read_weights

if importlib.util.find_spec("timm") is None:  # timm itself takes seconds to import: only where a source is loaded
    raise ImportError('timm is not installed: pip install "autoxfer[vision]"', name="timm")

PREFIX = "timm:"


@final
class TimmLoader(SourceLoader):
    """Makes a timm model; mean, standard deviation and size are those that its weights were trained with."""

    name: ClassVar[str] = "timm"

    def loads(self, spec: SourceSpec) -> bool:
        """Whether the model starts with ``timm:``."""
        return spec.model.startswith(PREFIX)

    def load(self, spec: SourceSpec) -> Source:
        """Load local weights, or those that timm knows of. Raises InputError."""
        where, name = f"sources.{spec.name}", spec.model.removeprefix(PREFIX)
        _check_name(name, f"{where}.model")
        options = dict(spec.options)
        if spec.weights is None:
            path, network = None, _download(name, options, where)
        else:
            path = locate(spec, spec.weights)
            state = read_weights(path, f"{where}.weights")
            options.setdefault("num_classes", _count_classes(name, options, state, where))
            network = _make(name, options, where)
            fit_weights(network, state, f"{where}.weights")
        card = read_card(spec, path, _data_config(network, options))
        weights = "timm's own" if path is None else path.name

        def source() -> Source:
            return Source.from_network(
                spec.name,
                partial(_make, name, options, where),
                network,
                input_shape=card.shape,
                mean=card.mean,
                std=card.std,
                reverse=card.reverse,
                classes=card.classes,
                stages=_stages(network),
                card={**card.record, "model": spec.model, "weights": weights, "options": options},
            )

        found = source()
        if found.head is None and _has_classes(network):  # a head of its own making: timm can leave it out
            state, options["num_classes"] = network.state_dict(), 0
            network = _make(name, options, where)
            own = network.state_dict()
            network.load_state_dict({key: tensor for key, tensor in state.items() if key in own})
            found = source()
        return found

    def factory(self, spec: SourceSpec, shape: Sequence[int], n_outputs: int) -> Callable[[], nn.Module]:
        """Let timm make the model, with as many channels and classes as there are. Raises InputError."""
        where, name = f"sources.{spec.name}", spec.model.removeprefix(PREFIX)
        _check_name(name, f"{where}.model")
        channels = {"in_chans": shape[0]} if shape[0] != 3 else {}
        return partial(_make, name, {"num_classes": n_outputs, **channels, **spec.options}, where)


def _check_name(name: str, where: str) -> None:
    import timm  # noqa: PLC0415 - heavy

    known = timm.list_models()
    architecture = name.partition(".")[0]
    if architecture not in known:
        near = get_close_matches(architecture, known, 1)
        raise InputError("a timm model", repr(name) + (f"; nearest: {near[0]!r}" if near else ""), where)


def _make(name: str, options: Mapping[str, Any], where: str, *, pretrained: bool = False) -> nn.Module:
    import timm  # noqa: PLC0415 - heavy

    try:
        network: nn.Module = timm.create_model(name, pretrained=pretrained, **options)
    except OSError:  # of a download: its caller's
        raise
    except Exception as error:
        found = f"{name} with options {dict(options)} raised {type(error).__name__}: {error}"
        raise InputError("a model that timm can make", found, f"{where}.model") from error
    return network


def _has_classes(network: nn.Module) -> bool:
    n_classes: Any = getattr(network, "num_classes", 0)
    return bool(n_classes)


def _stages(network: nn.Module) -> list[str]:
    """Read which modules timm calls the network's stages."""
    known: Any = getattr(network, "feature_info", None)
    entries = known if isinstance(known, list) else getattr(known, "info", [])
    return [str(entry["module"]) for entry in entries if "module" in entry]


def _data_config(network: nn.Module, options: Mapping[str, Any]) -> dict[str, Any]:
    """Look up what timm recorded of the weights' input; the size is the one that the network was asked for."""
    from timm.data.config import resolve_data_config  # noqa: PLC0415 - heavy

    config: dict[str, Any] = resolve_data_config(model=network)  # type: ignore[no-untyped-call]
    shape = list(config["input_size"])
    if (size := options.get("img_size")) is not None:
        shape[1:] = size if isinstance(size, list | tuple) else (size, size)
    return {"shape": shape, "mean": list(config["mean"]), "std": list(config["std"])}


def _count_classes(name: str, options: Mapping[str, Any], state: Mapping[str, Tensor], where: str) -> int:
    """Count the classes of the file's head; 0 where the file has no head."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        network = _make(name, options, where)
    names = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    for classifier in [names] if isinstance(names, str) else names:
        for prefix in ("", *PREFIXES):
            weight = state.get(f"{prefix}{classifier}.weight")
            if weight is not None:
                return int(weight.shape[0])
    return 0


def _download(name: str, options: Mapping[str, Any], where: str) -> nn.Module:
    """Let timm find its weights: in its cache, or at its hub where that answers."""
    with torch.random.fork_rng(devices=[]), quick_to_give_up() as answered:
        try:
            return _make(name, options, where, pretrained=True)
        except OSError as error:
            expected = "weights: a local .safetensors or checkpoint file for this model"
            found = f"none, and timm could not fetch its own ({why(error, answered=answered)})"
            raise InputError(expected, found, f"{where}.weights") from error


@hookimpl
def autoxfer_sources() -> list[type[SourceLoader]]:
    """Offer timm's models."""
    return [TimmLoader]
