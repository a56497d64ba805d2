"""Several candidates of one structure trained as one program: what ``populations.py`` measures.

Their parameters are the rows of one matrix, so that one batched product per layer, one norm per row and one AdamW over
the matrix, with a rate and a decay for every entry, serve them all. Every member keeps its own rates, dropout masks,
order of the examples, length, batch size (smaller ones are filled up and weighted 0), checks and stopping.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from autoxfer.layout import ChannelsLast
from autoxfer.optimising import BETAS, EPSILON, MAX_NORM, group_of, schedule
from autoxfer.records import Score
from autoxfer.strategy import Candidate, Fitted
from autoxfer.training import CHECKS, GradientTrainer, set_modes


@dataclass
class Member:
    """One candidate with its trainer, and what training it has led to."""

    candidate: Candidate
    trainer: GradientTrainer
    generator: torch.Generator  # of its dropout masks
    curve: list[tuple[float, float]] = field(default_factory=list)
    best: tuple[Score, float, dict[str, Tensor]] | None = None
    fitted: Fitted | None = None

    def __post_init__(self) -> None:
        module, self.n_steps = self.candidate.module, self.trainer.recipe.steps or 1
        self.rows: Iterator[Tensor] = self.trainer._batches(self.n_steps)
        self.checks = {max(1, round(self.n_steps * (k + 1) / CHECKS)) for k in range(CHECKS)}
        self.initial = {name: p.detach().clone() for name, p in module.named_parameters()}

    def check(self, step: int) -> None:
        """Score the tune split, and keep the weights if they are the best so far; finish where it is time."""
        module, share = self.candidate.module, step / self.n_steps
        score = self.trainer.score(self.candidate)
        self.curve.append((share, score.rank))
        if self.best is None or score.beats(self.best[0]):
            self.best = score, share, {name: t.detach().clone() for name, t in module.state_dict().items()}
        stopped = self.trainer._stops(self.curve, share) if 0 < step < self.n_steps else ""
        if stopped or step == self.n_steps:
            score, kept, state = self.best
            self.fitted = Fitted(state, score, tuple(self.curve), step, stopped, {"kept": kept})

    def hold(self) -> None:
        """Put entries back that stay as they are."""
        for name, mask in self.candidate.frozen.items():
            parameter = self.candidate.module.get_parameter(name)
            parameter.data.copy_(torch.where(mask, self.initial[name], parameter.data))


class Stack:
    """Trains members of one structure together; ``how``: by "products" of our own, or by torch's "vmap"."""

    def __init__(self, members: Sequence[Member], how: str = "products") -> None:
        self.members, self.how = list(members), how
        self._weights = torch.empty(0)  # of every example in its member's loss: (members, batch)
        self._first = members[0].trainer
        self._inputs = self._first._inputs(members[0].candidate)

    def fits(self) -> bool:
        """Whether the program gives what the members give alone, in evaluation mode: what it cannot do shows here."""
        self._lay(self.members)
        rows = [torch.arange(min(8, len(self._first._labels)))] * len(self.members)
        tensors, _ = self._fetch(rows)
        for module in (self._network, *(member.candidate.module for member in self.members)):
            module.eval()
        with torch.no_grad():
            try:
                together = self._forward(tensors)
            except (RuntimeError, IndexError):
                return False
            alone = [m.candidate.module(*(t[k] for t in tensors)) for k, m in enumerate(self.members)]
        return all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(alone, together, strict=True))

    def run(self) -> list[Fitted]:
        """Train them all, each to its own end."""
        active, step = self.members, 0
        self._lay(active)
        for member in active:
            member.check(0)
        while active:
            step += 1
            self._step(active, step)
            for member in active:
                if step in member.checks:
                    member.check(step)
            if any(member.fitted for member in active):
                left = [k for k, member in enumerate(active) if member.fitted is None]
                active = [active[k] for k in left]
                if active:
                    self._lay(active, [moment[left] for moment in self._moments])
        return [member.fitted for member in self.members if member.fitted is not None]

    def _step(self, active: Sequence[Member], step: int) -> None:
        tensors, rows = self._fetch([next(member.rows) for member in active])
        set_modes(self._network)
        outputs, labels = self._forward(tensors), self._first._labels[rows]
        if labels.dim() == 2:  # classes: (members, batch)
            losses = functional.cross_entropy(outputs.flatten(0, 1), labels.flatten(), reduction="none")
        else:
            losses = (outputs - labels).square().mean(2).flatten()
        self._gradient.zero_()
        (losses * self._weights.flatten()).sum().backward()  # type: ignore[no-untyped-call]
        if self._pull is not None:
            self._gradient.addcmul_(self._pull[0], self._matrix - self._pull[1])
        norms = self._gradient.norm(dim=1, keepdim=True)
        self._gradient.mul_((MAX_NORM / (norms + 1e-6)).clamp(max=1.0))
        shares = [schedule(step, member.n_steps) for member in active]
        self._adamw(step, self._rates * torch.tensor(shares, device=norms.device)[:, None])
        for member in active:
            member.hold()

    def _fetch(self, rows: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Get every member's batch, filled up to the largest: (members, batch, ...) each; and the rows."""
        self._sizes = [len(each) for each in rows]
        most = max(self._sizes)
        joint = torch.stack([functional.pad(each, (0, most - len(each))) for each in rows])
        if self._weights.shape != joint.shape:
            shares = [[1 / size] * size + [0.0] * (most - size) for size in self._sizes]
            self._weights = torch.tensor(shares, device=joint.device)
        whole = self._first._features.batch(self._inputs, "train", joint.flatten())
        return [tensor.view(len(rows), most, *tensor.shape[1:]) for tensor in whole], joint

    def _forward(self, tensors: Sequence[Tensor]) -> Tensor:
        if self.how == "products":
            outputs: Tensor = self._network(*tensors)
        else:
            called = vmap(lambda p, b, x: functional_call(self._network, (p, b), x), randomness="different")
            outputs = called(self._leaves, self._buffers, tuple(tensors))
        return outputs

    @torch.no_grad()
    def _adamw(self, step: int, rates: Tensor) -> None:
        """Do torch.optim.AdamW's step for every entry of the matrix."""
        mean, square = self._moments
        mean.lerp_(self._gradient, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(self._gradient, self._gradient, value=1 - BETAS[1])
        self._matrix.addcmul_(self._matrix, rates * self._decays, value=-1)
        root = square.sqrt().div_((1 - BETAS[1] ** step) ** 0.5).add_(EPSILON)
        self._matrix.addcdiv_(rates.mul_(mean), root, value=-1 / (1 - BETAS[0] ** step))

    def _lay(self, active: Sequence[Member], moments: Sequence[Tensor] = ()) -> None:
        """Lay the members' parameters side by side; theirs become views, so that each can be scored as it stands."""
        parameters = [dict(member.candidate.module.named_parameters()) for member in active]
        trained = [name for name, parameter in parameters[0].items() if parameter.requires_grad]
        self._matrix = torch.stack([torch.cat([each[n].detach().flatten() for n in trained]) for each in parameters])
        self._gradient = torch.zeros_like(self._matrix)
        self._moments = list(moments) or [torch.zeros_like(self._matrix) for _ in range(2)]
        self._weights = torch.empty(0)
        self._leaves: dict[str, Tensor] = {}
        end = 0
        for name in trained:
            begin, shape = end, parameters[0][name].shape
            end += shape.numel()
            leaf = self._matrix[:, begin:end].view(-1, *shape).detach().requires_grad_()
            leaf.grad = self._gradient[:, begin:end].view(-1, *shape)
            self._leaves[name] = leaf
            for each, values in zip(parameters, leaf.detach(), strict=True):
                each[name].data = values
        settings = [{name: _settings(member, name) for name in trained} for member in active]
        self._rates, self._decays, anchors = (_spread(active, settings, k) for k in range(3))
        initial = torch.stack([torch.cat([member.initial[name].flatten() for name in trained]) for member in active])
        self._pull = (anchors, initial) if anchors.any() else None
        self._network = self._program(active)

    def _program(self, active: Sequence[Member]) -> nn.Module:
        """Make the network that computes all members at once."""
        modules = [member.candidate.module for member in active]
        network = copy.deepcopy(modules[0])
        if self.how == "vmap":
            self._buffers = {
                name: torch.stack([dict(module.named_buffers())[name] for module in modules])
                for name, _ in modules[0].named_buffers()
            }
            for k, module in enumerate(modules):
                for name, buffer in module.named_buffers():
                    buffer.data = self._buffers[name][k]
            for name, part in list(network.named_modules()):
                if isinstance(part, ChannelsLast):  # vmap knows no such order; convolutions give the same without
                    network.set_submodule(name, nn.Identity())
            return network
        root = nn.Sequential(network)  # so that a lone layer has a parent too
        for name, part in list(root.named_modules()):
            path = name.partition(".")[2]
            if isinstance(part, nn.Linear):
                weight, bias = (self._stacked(modules, f"{path}.{key}".lstrip(".")) for key in ("weight", "bias"))
                assert weight is not None
                root.set_submodule(name, _Product(weight, bias))
            elif isinstance(part, nn.Flatten):
                root.set_submodule(name, nn.Flatten(part.start_dim + 1 if part.start_dim > 0 else part.start_dim))
            elif isinstance(part, nn.Dropout):
                shares = [module.get_submodule(path).p for module in modules]
                root.set_submodule(name, _Dropout(self, shares, active))  # type: ignore[arg-type]
            elif isinstance(getattr(part, "scale", None), float):  # residual's and LoRA's
                scales = [module.get_submodule(path).scale for module in modules]
                part.scale = torch.tensor(scales, device=self._matrix.device)[:, None, None]
        laid: nn.Module = root[0]
        return laid

    def _stacked(self, modules: Sequence[nn.Module], name: str) -> Tensor | None:
        if name in self._leaves:
            return self._leaves[name]
        found = [dict(module.named_parameters()).get(name) for module in modules]
        return torch.stack([p.detach() for p in found if p is not None]) if found[0] is not None else None


class _Product(nn.Module):
    """A linear layer for each member: (members, batch, in) -> (members, batch, out)."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.tensors = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.tensors
        return x @ weight.mT if bias is None else torch.baddbmm(bias[:, None], x, weight.mT)


class _Dropout(nn.Module):
    """Dropout with the masks that each member would draw alone."""

    def __init__(self, stack: Stack, shares: Sequence[float], active: Sequence[Member]) -> None:
        super().__init__()
        self.stack, self.shares, self.active = [stack], shares, active

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not any(self.shares):
            return x
        noise = torch.ones_like(x)
        for k, (share, size) in enumerate(zip(self.shares, self.stack[0]._sizes, strict=True)):
            if share:
                drawn = torch.empty_like(x[k, :size]).bernoulli_(1 - share, generator=self.active[k].generator)
                noise[k, :size] = drawn.div_(1 - share)
        return x * noise


def _settings(member: Member, name: str) -> tuple[float, float, float]:
    """Give a parameter's rate, decay and anchor."""
    recipe, group = member.trainer.recipe, group_of(name, member.candidate.groups)
    return recipe.lr * group.lr, recipe.decay if group.decay is None else group.decay, group.anchor


def _spread(
    active: Sequence[Member], settings: Sequence[Mapping[str, tuple[float, float, float]]], place: int
) -> Tensor:
    """Give every entry one of its parameter's numbers: (members, entries)."""
    rows = [
        torch.cat([torch.full_like(member.initial[name], each[place]).flatten() for name, each in own.items()])
        for member, own in zip(active, settings, strict=True)
    ]
    return torch.stack(rows)
