"""Golden outputs of every supported operation, from ONNX Runtime.

    pip install -r testdata/gen/requirements.txt
    python testdata/gen/ops.py testdata/golden/ops.safetensors

For each case the file holds NAME.model (the bytes of a small ONNX model), NAME.input and NAME.output.
"""
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

random = np.random.default_rng(0)
out = {}


def weights(*shape):
    return random.normal(0, 1, shape).astype(np.float32)


def case(name, nodes, constants, shape, opset=13, free_batch=True, low=-2.0):
    """`nodes`: (op, inputs, attributes) in order; value x is the input, each node writes y0, y1, ... and the last is the result."""
    made = []
    for i, (op, inputs, attributes) in enumerate(nodes):
        made.append(helper.make_node(op, inputs, [f"y{i}"], name=f"{name}_{i}", **attributes))
    graph = helper.make_graph(
        made,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (["N"] if free_batch else [shape[0]]) + list(shape[1:]))],
        [helper.make_empty_tensor_value_info(made[-1].output[0])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    data = model.SerializeToString()
    images = random.uniform(low, 2, shape).astype(np.float32)
    result = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": images})[0]
    assert name + ".model" not in out, name
    out[name + ".model"] = np.frombuffer(data, np.uint8)
    out[name + ".input"], out[name + ".output"] = images, result


def one(name, op, extra, constants, shape, opset=13, **attributes):
    case(name, [(op, ["x", *extra], attributes)], constants, shape, opset)


def ints(*values):
    return np.array(values, np.int64)


def convolutions():
    w, b = weights(5, 4, 3, 3), weights(5)
    for name, attributes in {
        "conv": dict(pads=[1, 1, 1, 1]),
        "conv_stride": dict(strides=[2, 1], pads=[0, 2, 1, 0]),
        "conv_dilation": dict(dilations=[2, 3]),
        "conv_same_upper": dict(auto_pad="SAME_UPPER", strides=[2, 2]),
        "conv_same_lower": dict(auto_pad="SAME_LOWER", strides=[2, 2]),
        "conv_valid": dict(auto_pad="VALID"),
    }.items():
        one(name, "Conv", ["w", "b"], {"w": w, "b": b}, (3, 4, 10, 11), **attributes)
    one("conv_no_bias", "Conv", ["w"], {"w": weights(7, 4, 1, 1)}, (2, 4, 5, 5))
    one("conv_grouped", "Conv", ["w"], {"w": weights(6, 2, 3, 3)}, (2, 4, 7, 6), group=2, pads=[1, 1, 1, 1])
    one("conv_depthwise", "Conv", ["w", "b"], {"w": weights(8, 1, 3, 3), "b": weights(8)}, (2, 4, 9, 9), group=4, strides=[2, 2], pads=[1, 1, 1, 1])
    one("conv_transpose", "ConvTranspose", ["w", "b"], {"w": weights(4, 3, 3, 2), "b": weights(3)}, (2, 4, 5, 6), strides=[2, 3], pads=[1, 0, 1, 1], output_padding=[1, 2])
    one("conv_transpose_grouped", "ConvTranspose", ["w"], {"w": weights(4, 3, 2, 2)}, (2, 4, 5, 6), group=2, dilations=[2, 1])
    bn = {k: v for k, v in zip(["g", "be", "m", "v"], [weights(5), weights(5), weights(5), np.abs(weights(5)) + 0.1])}
    case("conv_bn_relu", [("Conv", ["x", "w", "b"], {}), ("BatchNormalization", ["y0", "g", "be", "m", "v"], {"epsilon": 1e-3}), ("Relu", ["y1"], {})], {"w": w, "b": b, **bn}, (2, 4, 6, 6))
    case("conv_read_twice", [("Conv", ["x", "w"], {}), ("BatchNormalization", ["y0", "g", "be", "m", "v"], {}), ("Add", ["y1", "y0"], {})], {"w": w, **bn}, (2, 4, 6, 6))
    case("bn_clip", [("BatchNormalization", ["x", "g", "be", "m", "v"], {}), ("Clip", ["y0", "lo", "hi"], {})], {**bn, "lo": np.float32(0), "hi": np.float32(6)}, (2, 5, 6, 6))
    case("bn_matrix", [("BatchNormalization", ["x", "g", "be", "m", "v"], {})], bn, (4, 5))


def matrices():
    one("gemm", "Gemm", ["w", "b"], {"w": weights(7, 40), "b": weights(40)}, (3, 7), alpha=0.5, beta=2.0)
    one("gemm_transposed", "Gemm", ["w", "b"], {"w": weights(40, 7), "b": weights(1)}, (19, 7), transB=1)
    one("gemm_no_bias", "Gemm", ["w"], {"w": weights(7, 3)}, (3, 7))
    one("matmul", "MatMul", ["w"], {"w": weights(6, 5)}, (2, 3, 4, 6))
    one("matmul_batched_constant", "MatMul", ["w"], {"w": weights(3, 6, 5)}, (2, 3, 4, 6))
    case("matmul_computed", [("Transpose", ["x"], {"perm": [0, 1, 3, 2]}), ("MatMul", ["x", "y0"], {})], {}, (2, 3, 4, 6))


def elementwise():
    shape = (2, 3, 4, 5)
    for op, attributes in [("Relu", {}), ("LeakyRelu", {"alpha": 0.2}), ("Sigmoid", {}), ("HardSigmoid", {}), ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}), ("Identity", {}), ("Dropout", {})]:
        one(op.lower() + "_".join(["", *attributes]), op, [], {}, shape, **attributes)
    one("hardswish", "HardSwish", [], {}, shape, opset=14)
    one("clip", "Clip", ["lo", "hi"], {"lo": np.float32(-0.5), "hi": np.float32(0.7)}, shape)
    one("clip_upper_only", "Clip", ["", "hi"], {"hi": np.float32(0.7)}, shape)
    one("clip_attributes", "Clip", [], {}, shape, opset=7, min=-0.5, max=0.7)
    for op in ("Add", "Sub", "Mul", "Div"):
        one(op.lower() + "_channel", op, ["c"], {"c": weights(3, 1, 1)}, shape)
        one(op.lower() + "_scalar", op, ["c"], {"c": np.float32(1.5)}, shape)
        one(op.lower() + "_row", op, ["c"], {"c": weights(1, 1, 4, 5)}, shape)
    case("sub_constant_first", [("Sub", ["c", "x"], {})], {"c": np.float32(1)}, shape)
    case("add_itself", [("Relu", ["x"], {}), ("Add", ["y0", "y0"], {}), ("Relu", ["y1"], {})], {}, shape)
    case("add_squeezed", [("GlobalAveragePool", ["x"], {}), ("Mul", ["x", "y0"], {}), ("Mul", ["y0", "y1"], {})], {}, shape)
    case("sum", [("Relu", ["x"], {}), ("Sum", ["x", "y0", "c"], {})], {"c": weights(2, 3, 4, 5)[:1]}, shape)
    for opset in (11, 13):
        for axis in (1, 2, -1):
            for op in ("Softmax", "LogSoftmax"):
                one(f"{op.lower()}_{opset}_{axis}", op, [], {}, shape, opset=opset, axis=axis)
        one(f"softmax_{opset}_default", "Softmax", [], {}, shape, opset=opset)


def moves():
    shape = (2, 3, 6, 7)
    case("concat", [("Relu", ["x"], {}), ("Concat", ["x", "y0", "c"], {"axis": 1})], {"c": weights(2, 2, 6, 7)}, shape, free_batch=False)
    one("slice", "Slice", ["s", "e", "a", "t"], {"s": ints(1, -1), "e": ints(100, -100), "a": ints(2, -1), "t": ints(2, -2)}, shape)
    one("slice_attributes", "Slice", [], {}, shape, opset=9, starts=[1, -5], ends=[3, 1000], axes=[1, 3])
    one("pad_constant", "Pad", ["p", "v"], {"p": ints(0, 1, 2, 0, 0, 1, 0, 3), "v": np.float32(1.5)}, shape)
    one("pad_negative", "Pad", ["p"], {"p": ints(0, 0, -1, 1, 0, 0, 2, -2)}, shape)
    one("pad_edge", "Pad", ["p"], {"p": ints(0, 0, 2, 1, 0, 0, 1, 3)}, shape, mode="edge")
    one("pad_reflect", "Pad", ["p"], {"p": ints(0, 0, 2, 1, 0, 0, 1, 3)}, shape, mode="reflect")
    one("pad_attributes", "Pad", [], {}, shape, opset=9, pads=[0, 1, 0, 1, 0, 0, 2, 0], value=0.5)
    one("pad_axes", "Pad", ["p", "", "a"], {"p": ints(1, 2, 3, 0), "a": ints(3, 2)}, shape, opset=18)
    one("flatten", "Flatten", [], {}, shape)
    one("reshape", "Reshape", ["s"], {"s": ints(0, -1, 3)}, shape)
    one("transpose", "Transpose", [], {}, shape, perm=[0, 3, 1, 2])
    one("unsqueeze", "Unsqueeze", ["a"], {"a": ints(1, -1)}, shape)
    one("unsqueeze_attribute", "Unsqueeze", [], {}, shape, opset=11, axes=[2])
    one("squeeze", "Squeeze", ["a"], {"a": ints(2, -1)}, (2, 3, 1, 1))
    one("squeeze_attribute", "Squeeze", [], {}, (2, 3, 1, 4), opset=11, axes=[2])
    one("squeeze_all", "Squeeze", [], {}, (2, 3, 1, 1))
    one("gather", "Gather", ["i"], {"i": np.array([[2, 0], [-1, 1]], np.int64)}, shape, axis=1)
    shuffle = [("Reshape", ["x", "s"], {}), ("Transpose", ["y0"], {"perm": [0, 2, 1, 3, 4]}), ("Reshape", ["y1", "t"], {})]
    case("channel_shuffle", shuffle, {"s": ints(0, 2, 3, 4, 5), "t": ints(0, -1, 4, 5)}, (2, 6, 4, 5))


def windows():
    shape = (2, 3, 11, 10)
    for op in ("MaxPool", "AveragePool"):
        name = op.lower()
        one(name, op, [], {}, shape, kernel_shape=[2, 3])
        one(name + "_stride_pads", op, [], {}, shape, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 1, 1])
        one(name + "_ceil", op, [], {}, shape, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
        one(name + "_ceil_pads", op, [], {}, shape, kernel_shape=[3, 2], strides=[3, 3], pads=[1, 1, 1, 1], ceil_mode=1)
        one(name + "_same", op, [], {}, shape, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
    one("maxpool_dilation", "MaxPool", [], {}, shape, kernel_shape=[2, 2], dilations=[2, 3])
    one("averagepool_include_pad", "AveragePool", [], {}, shape, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)
    one("globalaveragepool", "GlobalAveragePool", [], {}, shape)
    one("reducemean", "ReduceMean", [], {}, shape, axes=[2, 3], keepdims=0)
    one("reducemean_middle", "ReduceMean", [], {}, shape, axes=[1], keepdims=1)
    one("reducemean_input", "ReduceMean", ["a"], {"a": ints(-1, 1)}, shape, opset=18, keepdims=1)
    scales, half = np.array([1, 1, 2, 1.5], np.float32), np.array([1, 1, 0.5, 0.6], np.float32)
    empty = np.array([], np.float32)
    one("resize_opset10", "Resize", ["s"], {"s": scales}, shape, opset=10, mode="nearest")
    one("resize_opset10_linear", "Resize", ["s"], {"s": scales}, shape, opset=10, mode="linear")
    for mode in ("nearest", "linear"):
        for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
            for label, factor in (("up", scales), ("down", half)):
                one(f"resize_{mode}_{coordinates}_{label}", "Resize", ["r", "s"], {"r": empty, "s": factor}, shape, mode=mode, coordinate_transformation_mode=coordinates)
    for rounding in ("round_prefer_ceil", "floor", "ceil"):
        one(f"resize_{rounding}", "Resize", ["", "s"], {"s": scales}, shape, mode="nearest", nearest_mode=rounding)
    sizes = [("Resize", ["x", "", "", "z"], {"mode": "linear"})]
    case("resize_sizes", sizes, {"z": ints(2, 3, 7, 19)}, shape, free_batch=False)


def shapes():
    """A reshape whose target is computed from the input's shape, with every operation that folds."""
    nodes = [
        ("Shape", ["x"], {}),
        ("Gather", ["y0", "zero"], {"axis": 0}),
        ("Unsqueeze", ["y1", "axes"], {}),
        ("Slice", ["y0", "one", "three"], {}),
        ("Mul", ["y3", "two"], {}),
        ("Div", ["y4", "two"], {}),
        ("ConstantOfShape", ["one"], {"value": numpy_helper.from_array(np.array([-1], np.int64))}),
        ("Concat", ["y2", "y6"], {"axis": 0}),
        ("Cast", ["y7"], {"to": TensorProto.FLOAT}),
        ("Cast", ["y8"], {"to": TensorProto.INT64}),
        ("Squeeze", ["y2", "axes"], {}),
        ("Reshape", ["x", "y9"], {}),
    ]
    constants = {"zero": np.int64(0), "axes": ints(0), "one": ints(1), "two": ints(2), "three": ints(3)}
    case("computed_shape", nodes, constants, (2, 3, 4, 5))
    fills = [("ConstantOfShape", ["s"], {"value": numpy_helper.from_array(np.array([2.5], np.float32))}), ("Mul", ["x", "y0"], {})]
    case("filled", fills, {"s": ints(3, 1, 1)}, (2, 3, 4, 5))
    case("constant_node", [("Constant", [], {"value_float": 1.5}), ("Add", ["x", "y0"], {})], {}, (2, 3))
    case("constant_nodes", [("Constant", [], {"value_floats": [1.5, 2.0, 3.0]}), ("Constant", [], {"value_ints": [0, 3, 1]}), ("Add", ["x", "y0"], {}), ("Reshape", ["y2", "y1"], {})], {}, (2, 3))


if __name__ == "__main__":
    for group in (convolutions, matrices, elementwise, moves, windows, shapes):
        group()
    save_file(out, sys.argv[1])
    print(len(out) // 3, "cases")
