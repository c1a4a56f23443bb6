"""A small network without BatchNormalization, with every kind of layer that has weights.

    python testdata/gen/plain.py

Writes testdata/golden/plain.onnx: convolutions without bias (plain, depthwise) and with one (grouped), a Gemm with
factors and an untransposed weight, a MatMul. Random weights: only differences from its own dense outputs mean anything.
"""
import pathlib

import numpy as np
import onnx
from onnx import helper, numpy_helper

rng = np.random.default_rng(0)
initializers = []


def weight(name, *shape):
    fan_in = np.prod(shape[1:]) if len(shape) == 4 else shape[0]
    initializers.append(numpy_helper.from_array((rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32), name))
    return name


def main():
    conv = lambda name, x, *more, **attributes: helper.make_node("Conv", [x, *more], [name], name=name, pads=[1] * 4, **attributes)
    node = lambda op, name, *inputs, **attributes: helper.make_node(op, list(inputs), [name], name=name, **attributes)
    nodes = [
        conv("conv", "x", weight("conv.weight", 12, 3, 3, 3)),
        node("Relu", "relu1", "conv"),
        # An optional input that is left out by an empty name.
        conv("depthwise", "relu1", weight("depthwise.weight", 12, 1, 3, 3), "", group=12, strides=[2, 2]),
        node("Relu", "relu2", "depthwise"),
        conv("grouped", "relu2", weight("grouped.weight", 16, 6, 3, 3), weight("grouped.bias", 16), group=2),
        node("Relu", "relu3", "grouped"),
        node("GlobalAveragePool", "pool", "relu3"),
        node("Flatten", "flat", "pool"),
        node("Gemm", "gemm", "flat", weight("gemm.weight", 16, 24), weight("gemm.bias", 24), alpha=0.5, beta=2.0),
        node("Relu", "relu4", "gemm"),
        node("MatMul", "y", "relu4", weight("matmul.weight", 24, 10)),
    ]
    value = lambda name, shape: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
    graph = helper.make_graph(nodes, "plain", [value("x", ["N", 3, 8, 8])], [value("y", ["N", 10])], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="plain.py")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, pathlib.Path(__file__).parent.parent / "golden/plain.onnx")


if __name__ == "__main__":
    main()
