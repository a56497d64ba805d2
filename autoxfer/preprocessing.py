"""Turn natural examples into what a source reads: channels adapted, resized, normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoxfer.errors import InputError

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601


@final
@dataclass(frozen=True)
class Fit:
    """How pictures come to the size that a source reads: resized, then cut at the centre, or filled up with black."""

    size: tuple[int, ...] = ()  # (height, width), or (shorter side,), the ratio kept; empty = the source's own size
    mode: Literal["nearest-exact", "bilinear", "bicubic"] = "bilinear"

    def resized(self, have: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int]:
        """Give the size to resize to, before anything is cut."""
        if len(self.size) == 2:
            return self.size[0], self.size[1]
        if not self.size:
            return wanted
        (edge,), short = self.size, min(have)
        return (edge, int(edge * have[1] / short)) if have[0] == short else (int(edge * have[0] / short), edge)


class Preprocess(nn.Module):
    """Natural examples (pixels in [0, 1], or table values) -> a source's input. ``notes`` says what is adapted."""

    mean: Tensor
    std: Tensor
    luminance: Tensor

    def __init__(
        self,
        natural: Sequence[int],  # (channels, height, width) or (width,)
        wanted: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        *,
        reverse: bool = False,  # the network reads BGR
        fit: Fit | None = None,  # of pictures
        where: str = "source",
    ) -> None:
        super().__init__()
        natural, wanted = tuple(natural), tuple(wanted)
        _check(natural, wanted, where)
        ones = [1] * (len(wanted) - 1)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, *ones))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(-1, *ones))
        self.register_buffer("luminance", torch.tensor(_LUMINANCE).view(3, 1, 1))
        self.channels = (natural[0], wanted[0]) if len(wanted) == 3 else (1, 1)
        self.mode, size = "bilinear", wanted[1:]
        if len(wanted) == 3:
            fit = fit or Fit()
            self.mode, size = fit.mode, fit.resized((natural[1], natural[2]), (wanted[1], wanted[2]))
        self.size = size if natural[1:] != size else None
        self.shrinks = any(a > b for a, b in zip(natural[1:], size, strict=True))
        self.margins = _margins(size, wanted[1:])
        self.reverse = reverse
        self.notes = tuple(self._describe(natural, wanted))

    def _describe(self, natural: tuple[int, ...], wanted: tuple[int, ...]) -> list[str]:
        notes = []
        if self.channels[0] < self.channels[1]:
            notes.append(f"grey repeated to {self.channels[1]} channels")
        if self.channels[0] > self.channels[1]:
            notes.append("RGB turned to grey (luminance)")
        if self.size is not None:
            kind = f"{self.mode}, antialiased" if self._antialiased else self.mode
            notes.append(f"resized from {natural[1]}x{natural[2]} to {self.size[0]}x{self.size[1]} ({kind})")
        if self.margins:
            how = "filled up with black" if min(self.margins) >= 0 else "cut at the centre"
            notes.append(f"{how} to {wanted[1]}x{wanted[2]}")
        return notes

    @property
    def _antialiased(self) -> bool:
        """Whether pixels are averaged; bicubic interpolation is then the one of image libraries, also for enlarging."""
        return self.mode == "bicubic" or (self.mode == "bilinear" and self.shrinks)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, *natural) -> (batch, *wanted)."""
        have, want = self.channels
        if have == 3 and want == 1:
            x = (x * self.luminance).sum(1, keepdim=True)
        elif have == 1 and want > 1:
            x = x.expand(-1, want, -1, -1)
        if self.size is not None:
            smooth: dict[str, Any] = {} if self.mode == "nearest-exact" else {"antialias": self._antialiased}
            x = functional.interpolate(x, self.size, mode=self.mode, **smooth)
            x = x.clamp(0.0, 1.0) if self.mode == "bicubic" else x  # it overshoots
        if self.margins:
            x = functional.pad(x, self.margins)
        if self.reverse:
            x = x.flip(1)
        return (x - self.mean) / self.std


class Select(nn.Module):
    """A table's natural values -> those that a source was trained on, by name and in its order.

    A category that the table never had is 0, as it is for every row of another category; ``notes`` says which.
    """

    index: Tensor  # (n_wanted,) where each value stands in the table
    known: Tensor  # (n_wanted,) 1, or 0 for such a category

    def __init__(self, names: Sequence[str], wanted: Sequence[str], where: str = "source") -> None:
        super().__init__()
        place = {name: index for index, name in enumerate(names)}
        kinds = {name.split("=", 1)[0] for name in names if "=" in name}
        absent = [name for name in wanted if name not in place]
        lost = list(dict.fromkeys(name for name in absent if "=" not in name or name.split("=", 1)[0] not in kinds))
        if lost:
            columns = list(dict.fromkeys(name.split("=", 1)[0] for name in lost))
            offered = list(dict.fromkeys(name.split("=", 1)[0] for name in names))
            expected = f"a table with {', '.join(columns)}, which the source reads"
            raise InputError(expected, f"a table of {', '.join(offered)}", where)
        self.register_buffer("index", torch.tensor([place.get(name, 0) for name in wanted]))
        self.register_buffer("known", torch.tensor([float(name in place) for name in wanted]))
        unread = [name for name in names if name not in set(wanted)]
        self.notes = [f"0 for {', '.join(absent)}, which the table never has"] if absent else []
        self.notes += [f"left out {', '.join(unread)}, which the source does not know"] if unread else []

    def forward(self, x: Tensor) -> Tensor:
        """(batch, natural width) -> (batch, n_wanted)."""
        return x.index_select(1, self.index) * self.known


def _margins(have: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Count what is added on the left, right, top and bottom; negative = cut off. Empty where nothing is."""
    if have == wanted:
        return ()
    sides = [_sides(a, b) for a, b in zip(have, wanted, strict=True)]
    return tuple(side for pair in reversed(sides) for side in pair)


def _sides(have: int, wanted: int) -> tuple[int, int]:
    if have <= wanted:
        return (wanted - have) // 2, (wanted - have + 1) // 2
    before = (have - wanted) // 2
    return -before, before + wanted - have


def _check(natural: tuple[int, ...], wanted: tuple[int, ...], where: str) -> None:
    if len(wanted) == 1:
        if len(natural) != 1:
            raise InputError(f"examples of {wanted[0]} values", f"examples of shape {_show(natural)}", where)
        if natural != wanted:
            raise InputError(f"examples of {wanted[0]} values, as the source reads", f"{natural[0]} values", where)
        return
    if len(natural) != 3:
        raise InputError(f"images, which the source reads as {_show(wanted)}", f"shape {_show(natural)}", where)
    if natural[0] != wanted[0] and (natural[0], wanted[0]) not in {(1, 3), (3, 1)}:
        raise InputError(f"images of {wanted[0]} channels", f"{natural[0]} channels", where)


def _show(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
