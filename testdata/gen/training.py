"""Golden gradients of every operation that can be trained, and two steps of training ResNet-20, by PyTorch.

    pip install -r testdata/gen/requirements.txt
    python testdata/gen/training.py testdata/golden/training.safetensors

Each case is a small ONNX file (kept as bytes) with the gradients of all its parameters. Everything is
computed in f64.
"""
import sys

import numpy as np
import torch
import torch.nn.functional as F
from architectures import ThinResNet, fill, noise
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

IMAGES, CHANNELS, SIDE, CLASSES = 3, 4, 8, 5


def array(name, *shape, scale=0.5):
    return (scale * noise(name, int(np.prod(shape)))).astype(np.float32).reshape(shape)


def whole(*values):
    return np.array(values, np.int64)


def number(value):
    return np.array(value, np.float32)


def node(op, *extra, out="y", **attributes):
    """A node that reads `t` and the named constants."""
    return lambda names: helper.make_node(op, ["t", *names], [out], **attributes), extra


def conv(t, weight, bias=None, **options):
    return F.conv2d(t, weight, bias, **options)


def bn(t, gamma, beta, mean, var):
    return F.batch_norm(t, mean.detach().clone(), var.detach().clone(), gamma, beta, True, 0.1, 1e-5)


W, B = ("w", array("w", 6, CHANNELS, 3, 3)), ("b", array("b", 6))
BN = [("gamma", 1 + array("gamma", CHANNELS)), ("beta", array("beta", CHANNELS)), ("mean", np.zeros(CHANNELS, np.float32)),
      ("var", np.ones(CHANNELS, np.float32))]
OTHER = ("r", 2 + array("r", 1, CHANNELS, 1, 1))

# Name: ONNX attributes and constants; the same in torch.
CASES = {
    "conv": (node("Conv", W, B, pads=[1, 1, 1, 1]), lambda t, w, b: conv(t, w, b, padding=1)),
    "conv_stride": (node("Conv", W, strides=[2, 2], pads=[1, 1, 1, 1]), lambda t, w: conv(t, w, stride=2, padding=1)),
    "conv_uneven_pads": (node("Conv", W, pads=[0, 1, 2, 0]), lambda t, w: conv(F.pad(t, (1, 0, 0, 2)), w)),
    "conv_dilated": (node("Conv", W, dilations=[2, 2], pads=[2, 2, 2, 2]), lambda t, w: conv(t, w, dilation=2, padding=2)),
    "conv_wide_pads": (node("Conv", W, pads=[4, 4, 4, 4]), lambda t, w: conv(t, w, padding=4)),
    "conv_pointwise_stride": (
        node("Conv", ("w", array("w", 6, CHANNELS, 1, 1)), strides=[2, 2]), lambda t, w: conv(t, w, stride=2)),
    "conv_grouped": (node("Conv", ("w", array("w", 6, 2, 3, 3)), group=2), lambda t, w: conv(t, w, groups=2)),
    "conv_depthwise": (
        node("Conv", ("w", array("w", CHANNELS, 1, 3, 3)), group=CHANNELS, pads=[1, 1, 1, 1]),
        lambda t, w: conv(t, w, groups=CHANNELS, padding=1)),
    "batch_norm": (node("BatchNormalization", *BN), bn),
    "relu": (node("Relu"), F.relu),
    "leaky_relu": (node("LeakyRelu", alpha=0.2), lambda t: F.leaky_relu(t, 0.2)),
    "sigmoid": (node("Sigmoid"), torch.sigmoid),
    "hard_sigmoid": (node("HardSigmoid", alpha=0.25, beta=0.4), lambda t: (t * 0.25 + 0.4).clamp(0, 1)),
    "hard_swish": (node("HardSwish"), F.hardswish),
    "clip": (node("Clip", ("low", number(-0.3)), ("high", number(0.6))), lambda t, low, high: t.clamp(-0.3, 0.6)),
    "add": (node("Add", OTHER), torch.add),
    "sub": (node("Sub", ("c", number(0.5))), lambda t, c: t - 0.5),
    "mul": (node("Mul", ("c", number(0.5))), lambda t, c: t * 0.5),
    "div": (node("Div", ("c", number(0.5))), lambda t, c: t / 0.5),
    "slice": (
        node("Slice", ("starts", whole(0, 1)), ("ends", whole(8, 7)), ("axes", whole(2, 3)), ("steps", whole(2, 3))),
        lambda t, *_: t[:, :, 0:8:2, 1:7:3]),
    "pad": (node("Pad", ("pads", whole(0, 1, 1, 0, 0, 2, 0, 3)), ("value", number(0.25))),
            lambda t, *_: F.pad(t, (0, 3, 1, 0, 1, 2), value=0.25)),
    "pad_reflect": (node("Pad", ("pads", whole(0, 0, 2, 1, 0, 0, 1, 2)), mode="reflect"),
                    lambda t, *_: F.pad(t, (1, 2, 2, 1), mode="reflect")),
    "pad_edge": (node("Pad", ("pads", whole(0, 0, 2, 1, 0, 0, 1, 2)), mode="edge"),
                 lambda t, *_: F.pad(t, (1, 2, 2, 1), mode="replicate")),
    "max_pool": (node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
                 lambda t: F.max_pool2d(t, 3, 2, 1)),
    "average_pool": (node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
                     lambda t: F.avg_pool2d(t, 3, 2, 1, count_include_pad=False)),
    "average_pool_with_border": (
        node("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1),
        lambda t: F.avg_pool2d(t, 3, 2, 1)),
    "global_average_pool": (node("GlobalAveragePool"), lambda t: t.mean((2, 3), keepdim=True)),
    "reduce_mean": (node("ReduceMean", axes=[2, 3], keepdims=1), lambda t: t.mean((2, 3), keepdim=True)),
    "reduce_mean_rows": (node("ReduceMean", axes=[2, 3], keepdims=0), lambda t: t.mean((2, 3))),
    "flatten": (node("Flatten", axis=1), lambda t: t.flatten(1)),
    "reshape": (node("Reshape", ("shape", whole(0, 8, 4, 8))), lambda t, _: t.reshape(len(t), 8, 4, 8)),
}


def case(make, function, head="gemm"):
    """conv -> the operation -> flatten -> linear, and the gradients of everything."""
    (build, extra), inputs = make, array("input", IMAGES, 3, SIDE, SIDE, scale=1.0)
    stem, rows = array("stem", CHANNELS, 3, 3, 3, scale=0.4), None
    constants = {"stem": stem, **dict(extra)}
    double = {n: torch.from_numpy(v).double().requires_grad_() for n, v in constants.items() if v.dtype == np.float32}
    t = F.conv2d(torch.from_numpy(inputs).double(), double["stem"], padding=1)
    y = function(t, *[double.get(name, None) for name, _ in extra]).flatten(1)
    rows = y.shape[1]
    constants["linear"] = array("linear", rows, CLASSES, scale=0.3)
    constants["linear_bias"] = array("linear_bias", CLASSES)
    for name in ["linear", "linear_bias"]:
        double[name] = torch.from_numpy(constants[name]).double().requires_grad_()
    logits = y @ double["linear"] + double["linear_bias"]
    nodes = [helper.make_node("Conv", ["input", "stem"], ["t"], pads=[1, 1, 1, 1]), build([name for name, _ in extra]),
             helper.make_node("Flatten", ["y"], ["rows"])]
    if head == "gemm":
        nodes.append(helper.make_node("Gemm", ["rows", "linear", "linear_bias"], ["output"]))
    else:
        nodes.append(helper.make_node("MatMul", ["rows", "linear"], ["product"]))
        nodes.append(helper.make_node("Add", ["product", "linear_bias"], ["logits"]))
        nodes.append(helper.make_node("Softmax", ["logits"], ["output"]))
    return finish(nodes, constants, double, logits)


def concat():
    stem, other = array("stem", CHANNELS, 3, 3, 3, scale=0.4), array("other", 2, 3, 1, 1)
    x = torch.from_numpy(array("input", IMAGES, 3, SIDE, SIDE, scale=1.0)).double()
    constants = {"stem": stem, "other": other, "linear": array("linear", CLASSES, 6, scale=0.3)}
    double = {n: torch.from_numpy(v).double().requires_grad_() for n, v in constants.items()}
    t, u = F.conv2d(x, double["stem"], padding=1), F.conv2d(x, double["other"])
    # The product of two computed values, and a value that is read twice.
    joined = torch.cat([t, u * u], 1)
    logits = F.relu(joined).mean((2, 3)) @ double["linear"].T
    nodes = [helper.make_node("Conv", ["input", "stem"], ["t"], pads=[1, 1, 1, 1]), helper.make_node("Conv", ["input", "other"], ["u"]),
             helper.make_node("Mul", ["u", "u"], ["v"]), helper.make_node("Concat", ["t", "v"], ["joined"], axis=1),
             helper.make_node("Relu", ["joined"], ["active"]), helper.make_node("GlobalAveragePool", ["active"], ["mean"]),
             helper.make_node("Flatten", ["mean"], ["rows"]), helper.make_node("Gemm", ["rows", "linear"], ["output"], transB=1)]
    return finish(nodes, constants, double, logits)


def finish(nodes, constants, double, logits):
    loss = F.cross_entropy(logits, torch.arange(IMAGES) % CLASSES)
    loss.backward()
    floats = lambda name, *shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "case", [floats("input", "batch", 3, SIDE, SIDE)], [floats("output", "batch", CLASSES)],
                              [numpy_helper.from_array(v, n) for n, v in constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    gradients = {n: v.grad.float().numpy() for n, v in double.items() if v.grad is not None and v.numel() > 1}
    return model.SerializeToString(), float(loss.detach()), gradients


def resnet_steps():
    """Weights and statistics after two steps with momentum and weight decay, as a few numbers of each."""
    net = fill(ThinResNet(3)).double().train()
    images = np.floor((noise("images", 16 * 3 * 32 * 32) / np.sqrt(3) + 1) * 127.99).astype(np.float64)
    x = torch.from_numpy((images / 255 - 0.5) / 0.25).reshape(16, 3, 32, 32)
    labels = torch.arange(16) % 10
    optimiser = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9, weight_decay=1e-2)
    losses = []
    for _ in range(2):
        loss = F.cross_entropy(net(x), labels, label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    state = {n: v for n, v in net.state_dict().items() if not n.endswith("num_batches_tracked")}
    return losses, {n: np.concatenate([v.flatten()[:32].numpy(), [float(v.sum()), float((v * v).sum())]]) for n, v in state.items()}


def main(path):
    golden = {}
    cases = {name: case(*pair) for name, pair in CASES.items()}
    cases["matmul_softmax"] = case(*CASES["relu"], head="matmul")
    cases["concat"] = concat()
    for name, (onnx, loss, gradients) in cases.items():
        golden[f"case.{name}.onnx"] = np.frombuffer(onnx, np.uint8)
        golden[f"case.{name}.loss"] = np.array([loss])
        for parameter, gradient in gradients.items():
            golden[f"case.{name}.grad.{parameter}"] = np.ascontiguousarray(gradient)
    losses, state = resnet_steps()
    golden["resnet.losses"] = np.array(losses)
    golden.update({f"resnet.state.{name}": values for name, values in state.items()})
    save_file(golden, path)
    print(len(cases), "cases", losses)


if __name__ == "__main__":
    main(sys.argv[1])
