"""Golden outputs of every built-in architecture, from torchvision where it has the network and from the
definitions below (after the cited papers) where it has not.

    pip install -r testdata/gen/requirements.txt
    python testdata/gen/architectures.py testdata/golden/architectures.safetensors

Weights and images come from a formula of their names, so that nothing but the outputs is stored.
"""
import sys

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from safetensors.numpy import save_file
from torch import nn

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def noise(name, count):
    """Uniform with mean 0 and variance 1, from FNV-1a of the name and SplitMix64."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 & MASK
    with np.errstate(over="ignore"):
        z = np.uint64(state) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        z = z ^ z >> np.uint64(31)
    return (2 * (z >> np.uint64(11)).astype(np.float64) / (1 << 53) - 1) * np.sqrt(3)


def fill(net):
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            u = noise(name, tensor.numel())
            if name.endswith("running_var"):
                u = 1 + 0.5 * np.abs(u)
            elif name.endswith("running_mean") or name.endswith("bias"):
                u = 0.1 * u
            elif tensor.dim() == 1:
                u = 1 + 0.1 * u
            else:
                u = u * np.sqrt(1.5 / (tensor.numel() / tensor.shape[0]))
            tensor.copy_(torch.from_numpy(u.astype(np.float32)).reshape(tensor.shape))
    return net.eval()


class LeNet300(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(784, 300), nn.Linear(300, 100), nn.Linear(100, 10)

    def forward(self, x):
        return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))


class LeNet5(nn.Module):
    """Caffe's sizes, with ReLU behind the convolutions as in the pruning literature."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.fc1, self.fc2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv2(F.max_pool2d(F.relu(self.conv1(x)), 2))), 2)
        return self.fc2(F.relu(self.fc1(x.flatten(1))))


VGG16 = [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0]
VGG19 = [64, 64, 0, 128, 128, 0, 256, 256, 256, 256, 0, 512, 512, 512, 512, 0, 512, 512, 512, 512, 0]


class Vgg(nn.Module):
    def __init__(self, channels, snip=False):
        super().__init__()
        layers, inputs = [], 3
        for outputs in channels:
            if not outputs:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=snip), nn.BatchNorm2d(outputs), nn.ReLU()]
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.snip = snip
        self.classifier = nn.Linear(512, 10)
        if snip:
            unit = lambda: [nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU()]
            self.classifier = nn.Sequential(*unit(), *unit(), nn.Linear(512, 10))

    def forward(self, x):
        x = self.features(x)
        return self.classifier(x.flatten(1) if self.snip else x.mean((2, 3)))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.stride, self.extra = stride, (outputs - inputs) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.stride == 2:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))
        return F.relu(y + x)


class ThinResNet(nn.Module):
    """He et al. 2016, section 4.2, with shortcuts of option A; names as in akamaster/pytorch_resnet_cifar10."""

    def __init__(self, blocks):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        stage = lambda i, o, s: nn.Sequential(Block(i, o, s), *[Block(o, o, 1) for _ in range(blocks - 1)])
        self.layer1, self.layer2, self.layer3 = stage(16, 16, 1), stage(16, 32, 2), stage(32, 64, 2)
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


def small(net):
    """The common change for images of 32x32: a 3x3 stem of stride 1 and no pooling behind it."""
    if hasattr(net, "conv1"):
        net.conv1, net.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    else:
        net.features.conv0, net.features.pool0 = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    return net


tv = torchvision.models
ARCHITECTURES = {
    "lenet-300-100": (LeNet300, [1, 28, 28]),
    "lenet-5": (LeNet5, [1, 28, 28]),
    "vgg-16-bn-cifar": (lambda: Vgg(VGG16), [3, 32, 32]),
    "vgg-19-bn-cifar": (lambda: Vgg(VGG19), [3, 32, 32]),
    "vgg-like": (lambda: Vgg(VGG16, snip=True), [3, 32, 32]),
    "resnet-20": (lambda: ThinResNet(3), [3, 32, 32]),
    "resnet-32": (lambda: ThinResNet(5), [3, 32, 32]),
    "resnet-44": (lambda: ThinResNet(7), [3, 32, 32]),
    "resnet-56": (lambda: ThinResNet(9), [3, 32, 32]),
    "resnet-18-cifar": (lambda: small(tv.resnet18(num_classes=10)), [3, 32, 32]),
    "resnet-34-cifar": (lambda: small(tv.resnet34(num_classes=10)), [3, 32, 32]),
    "resnet-50-cifar": (lambda: small(tv.resnet50(num_classes=10)), [3, 32, 32]),
    "resnet-18": (tv.resnet18, [3, 224, 224]),
    "resnet-34": (tv.resnet34, [3, 224, 224]),
    "resnet-50": (tv.resnet50, [3, 224, 224]),
    "resnet-152": (tv.resnet152, [3, 224, 224]),
    "densenet-121-cifar": (lambda: small(tv.densenet121(num_classes=10)), [3, 32, 32]),
    "densenet-121": (tv.densenet121, [3, 224, 224]),
    "mobilenet-v2": (tv.mobilenet_v2, [3, 224, 224]),
}


def main(path):
    golden = {}
    torch.set_grad_enabled(False)
    for name, (build, image) in ARCHITECTURES.items():
        net = fill(build())
        count = sum(p.numel() for p in net.parameters())
        x = torch.from_numpy(noise("input", 2 * int(np.prod(image))).astype(np.float32)).reshape(2, *image)
        y = net.double()(x.double()).float()
        golden[f"{name}.output"] = y.numpy()
        golden[f"{name}.parameters"] = np.array([count], np.int64)
        print(name, count, float(y.abs().max()), float(y.std(1).mean()))
    save_file(golden, path)


if __name__ == "__main__":
    main(sys.argv[1])
