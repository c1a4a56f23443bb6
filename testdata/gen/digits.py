"""Makes the embedded default of `resprout demo`: the UCI handwritten digits and a small residual
BatchNorm network trained on a part of them.

    pip install -r testdata/gen/requirements.txt
    python testdata/gen/digits.py crates/resprout-cli/assets

Images 0 to 999 train the network (images 0 to 255 are also the demo's calibration images).
Images 1000 to 1796 are never seen in training: they are the demo's test images.
"""
import gzip
import pathlib
import struct
import sys

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from torch import nn

TRAIN, EPOCHS, BATCH, SEED = 1000, 60, 50, 0
WIDTHS = [16, 32, 64]
MEAN, STD = 4.884, 6.017  # of the pixels 0..16 of all images


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.down = stride != 1 or inputs != outputs
        if self.down:
            self.downsample_conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample_bn = nn.BatchNorm2d(outputs)

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (self.downsample_bn(self.downsample_conv(x)) if self.down else x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, WIDTHS[0], 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTHS[0])
        self.layer1, self.layer2, self.layer3 = Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2)
        self.fc = nn.Linear(WIDTHS[-1], 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return self.fc(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def train(images, labels):
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # the same sums in the same order everywhere
    net, x, y = Net(), torch.from_numpy((images - MEAN) / STD).float()[:, None], torch.from_numpy(labels).long()
    optimiser = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, epochs=EPOCHS, steps_per_epoch=TRAIN // BATCH)
    for _ in range(EPOCHS):
        for part in torch.randperm(TRAIN).split(BATCH):
            shift = torch.randint(-1, 2, (2,))
            batch = torch.roll(x[part], tuple(shift.tolist()), (2, 3))
            optimiser.zero_grad()
            F.cross_entropy(net(batch), y[part]).backward()
            optimiser.step()
            schedule.step()
    net.eval()
    with torch.no_grad():
        print("test accuracy", float((net(x[TRAIN:]).argmax(1) == y[TRAIN:]).float().mean()))
    return net


class Exporter:
    """Writes the network node by node, so that BatchNormalization stays a node of its own."""

    def __init__(self, net):
        self.state, self.nodes, self.tensors = net.state_dict(), [], []

    def param(self, name):
        self.tensors.append(numpy_helper.from_array(self.state[name].numpy().astype(np.float32), name))
        return name

    def node(self, op, name, inputs, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [name + "_out"], name=name, **attributes))
        return name + "_out"

    def conv_bn(self, x, conv, bn, stride, relu):
        size = self.state[conv + ".weight"].shape[2]
        x = self.node("Conv", conv, [x, self.param(conv + ".weight")], kernel_shape=[size, size], strides=[stride, stride], pads=[size // 2] * 4)
        x = self.node("BatchNormalization", bn, [x] + [self.param(f"{bn}.{p}") for p in ("weight", "bias", "running_mean", "running_var")], epsilon=1e-5)
        return self.node("Relu", bn + "_relu", [x]) if relu else x

    def block(self, x, name, stride, down):
        y = self.conv_bn(x, name + ".conv1", name + ".bn1", stride, True)
        y = self.conv_bn(y, name + ".conv2", name + ".bn2", 1, False)
        if down:
            x = self.conv_bn(x, name + ".downsample_conv", name + ".downsample_bn", stride, False)
        return self.node("Relu", name + ".relu", [self.node("Add", name + ".add", [y, x])])

    def export(self, path):
        x = self.conv_bn("image", "conv1", "bn1", 1, True)
        for name, stride, down in (("layer1", 1, False), ("layer2", 2, True), ("layer3", 2, True)):
            x = self.block(x, name, stride, down)
        x = self.node("Flatten", "flatten", [self.node("GlobalAveragePool", "pool", [x])])
        self.nodes.append(helper.make_node("Gemm", [x, self.param("fc.weight"), self.param("fc.bias")], ["logits"], name="fc", transB=1))
        graph = helper.make_graph(
            self.nodes,
            "digits",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
            self.tensors,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="resprout")
        onnx.checker.check_model(model)
        onnx.save(model, path)


def write_idx(path, array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes(), 9, mtime=0))


if __name__ == "__main__":
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    write_idx(out / "digits-images-idx3-ubyte.gz", digits.images)
    write_idx(out / "digits-labels-idx1-ubyte.gz", digits.target)
    Exporter(train(digits.images, digits.target)).export(out / "digits.onnx")
