"""Small networks, written from the words of their cards, that the published weights load into."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


class LeNet(nn.Module):
    """Two convolutions, two linear layers, functional everything else (the layout of PyTorch's FGSM tutorial)."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.fc1 = nn.Linear(320, 50)
        self.fc2 = nn.Linear(50, 10)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(functional.max_pool2d(self.conv1(x), 2))
        x = functional.relu(functional.max_pool2d(self.conv2(x), 2))
        x = functional.relu(self.fc1(torch.flatten(x, 1)))
        x = functional.dropout(x, self.dropout, training=self.training)
        return self.fc2(x)


class Block(nn.Module):
    """A basic residual block whose shortcut has no parameters (option A)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.stride, self.padding = stride, (after - before) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))
        return functional.relu(y + x)


class CifarResNet(nn.Module):
    """He et al. 2015, section 4.2: three stages of ``n`` blocks; depth 6n + 2."""

    def __init__(self, n: int = 3, n_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, n, 1)
        self.layer2 = self._stage(16, 32, n, 2)
        self.layer3 = self._stage(32, 64, n, 2)
        self.linear = nn.Linear(64, n_classes)

    @staticmethod
    def _stage(before: int, after: int, n: int, stride: int) -> nn.Sequential:
        return nn.Sequential(Block(before, after, stride), *(Block(after, after, 1) for _ in range(n - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = functional.avg_pool2d(x, x.size()[3])
        return self.linear(x.view(x.size(0), -1))


class ResNet8(nn.Module):
    """MLPerf Tiny's image classifier, converted from Keras: every block written out in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.bn0 = nn.Conv2d(3, 16, 3, 1, 1), nn.BatchNorm2d(16, eps=1e-3)
        widths = (16, 16, 32, 64)
        for k in (1, 2, 3):
            before, after = widths[k - 1], widths[k]
            stride = 1 if k == 1 else 2
            self.add_module(f"b{k}_conv1", nn.Conv2d(before, after, 3, stride, 1 if k == 1 else 0))
            self.add_module(f"b{k}_conv2", nn.Conv2d(after, after, 3, 1, 1))
            self.add_module(f"b{k}_bn1", nn.BatchNorm2d(after, eps=1e-3))
            self.add_module(f"b{k}_bn2", nn.BatchNorm2d(after, eps=1e-3))
            if k > 1:
                self.add_module(f"b{k}_short", nn.Conv2d(before, after, 1, stride))
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn0(self.conv0(x)))
        for k in (1, 2, 3):
            part: Callable[[str], nn.Module] = lambda name, k=k: getattr(self, f"b{k}_{name}")  # noqa: E731
            y = x if k == 1 else functional.pad(x, (0, 1, 0, 1))
            y = functional.relu(part("bn1")(part("conv1")(y)))
            y = part("bn2")(part("conv2")(y))
            x = functional.relu(y + (x if k == 1 else part("short")(x)))
        return self.fc(x.mean((2, 3)))


class Fire(nn.Module):
    """SqueezeNet's module."""

    def __init__(self, before: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.squeeze(x))
        return torch.cat([functional.relu(self.expand1x1(x)), functional.relu(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    """SqueezeNet 1.0, the key names of torchvision."""

    def __init__(self, n_classes: int = 1000) -> None:
        super().__init__()
        pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        fires = [Fire(96, 16, 64), Fire(128, 16, 64), Fire(128, 32, 128), pool, Fire(256, 32, 128)]
        fires += [Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), pool, Fire(512, 64, 256)]
        self.features = nn.Sequential(nn.Conv2d(3, 96, 7, 2), nn.ReLU(inplace=True), pool, *fires)
        last = nn.Conv2d(512, n_classes, 1)
        self.classifier = nn.Sequential(nn.Dropout(0.5), last, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.classifier(self.features(x)), 1)


class MobileNet(nn.Module):
    """MobileNetV1, a quarter of the width, for person or no person; convolutions have biases."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.bn0 = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8, eps=1e-3)
        widths = [8, 16, 32, 32, 64, 64, 128, 128, 128, 128, 128, 128, 256, 256]
        self.strides = [2 if k in (1, 3, 5, 11) else 1 for k in range(13)]
        pairs = list(pairwise(widths))
        self.dw = nn.ModuleList(
            nn.Conv2d(a, a, 3, s, 2 - s, groups=a) for (a, _), s in zip(pairs, self.strides, strict=True)
        )
        self.dw_bn = nn.ModuleList(nn.BatchNorm2d(a, eps=1e-3) for a, _ in pairs)
        self.pw = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairs)
        self.pw_bn = nn.ModuleList(nn.BatchNorm2d(b, eps=1e-3) for _, b in pairs)
        self.fc = nn.Linear(256, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn0(self.conv0(functional.pad(x, (0, 1, 0, 1)))))
        for k, stride in enumerate(self.strides):
            x = functional.pad(x, (0, 1, 0, 1)) if stride == 2 else x
            x = functional.relu(self.dw_bn[k](self.dw[k](x)))
            x = functional.relu(self.pw_bn[k](self.pw[k](x)))
        return self.fc(x.mean((2, 3)))
