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
        outputs = [f"y{i}", f"y{i}_indices"] if op == "TopK" else [f"y{i}"]
        made.append(helper.make_node(op, inputs, outputs, name=f"{name}_{i}", **attributes))
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


def functions():
    """Functions of one value and of two."""
    shape = (2, 3, 4, 5)
    plain = "Abs Sign Floor Ceil Round Exp Erf Sin Cos Tan Atan Sinh Cosh Tanh Asinh Reciprocal Softplus Softsign"
    for op in plain.split():
        one(op.lower(), op, [], {}, shape)
    case("log", [("Log", ["x"], {})], {}, shape, low=0.1)
    for op in ("Asin", "Acos", "Atanh"):
        case(op.lower(), [("Sigmoid", ["x"], {}), (op, ["y0"], {})], {}, shape)
    case("acosh", [("Exp", ["x"], {}), ("Add", ["y0", "one"], {}), ("Acosh", ["y1"], {})], {"one": np.float32(1)}, shape)
    for op in ("Elu", "Celu", "ThresholdedRelu"):
        one(op.lower(), op, [], {}, shape, alpha=0.7)
    one("selu", "Selu", [], {}, shape)
    one("shrink", "Shrink", [], {}, shape, lambd=0.6, bias=0.3)
    one("mish", "Mish", [], {}, shape, opset=18)
    one("gelu", "Gelu", [], {}, shape, opset=20)
    one("gelu_tanh", "Gelu", [], {}, shape, opset=20, approximate="tanh")
    one("prelu", "PRelu", ["s"], {"s": weights(3, 1, 1)}, shape)
    one("pow", "Pow", ["p"], {"p": np.float32(3)}, shape)
    one("mod", "Mod", ["p"], {"p": np.float32(0.7)}, shape, fmod=1)
    one("mean_of_three", "Mean", ["a", "x"], {"a": weights(3, 1, 1)}, shape)
    one("sum_of_different_shapes", "Sum", ["a", "b"], {"a": weights(3, 1, 1), "b": weights(1, 5)}, shape)
    for op in ("Equal", "Less", "Greater"):
        compared = [(op, ["x", "c"], {}), ("Cast", ["y0"], {"to": TensorProto.FLOAT})]
        case(op.lower(), compared, {"c": np.float32(0.5)}, shape)
    logic = [("Less", ["x", "c"], {}), ("Greater", ["x", "d"], {}), ("And", ["y0", "y1"], {}), ("Not", ["y2"], {}), ("Where", ["y3", "x", "d"], {})]
    case("where", logic, {"c": np.float32(1), "d": np.float32(-1)}, shape)
    case("casts", [("Cast", ["x"], {"to": TensorProto.INT32}), ("Cast", ["y0"], {"to": TensorProto.FLOAT})], {}, shape)
    case("cast_half", [("Cast", ["x"], {"to": TensorProto.FLOAT16}), ("Cast", ["y0"], {"to": TensorProto.FLOAT})], {}, shape)
    integers = [("Cast", ["x"], {"to": TensorProto.INT64}), ("Div", ["y0", "two"], {}), ("Cast", ["y1"], {"to": TensorProto.FLOAT})]
    case("integer_division", integers, {"two": np.int64(2)}, shape, low=-9.0)
    quantised = [("QuantizeLinear", ["x", "s", "z"], {"axis": 1}), ("DequantizeLinear", ["y0", "s", "z"], {"axis": 1})]
    case("quantised", quantised, {"s": np.array([0.02, 0.1, 0.01], np.float32), "z": np.array([0, 3, -5], np.int8)}, shape)


def normalisations():
    shape = (2, 6, 4, 5)
    one("layer_norm", "LayerNormalization", ["s", "b"], {"s": weights(5), "b": weights(5)}, shape, opset=17)
    one("layer_norm_two_axes", "LayerNormalization", ["s"], {"s": weights(4, 5)}, shape, opset=17, axis=2, epsilon=1e-2)
    one("rms_norm", "RMSNormalization", ["s"], {"s": weights(5)}, shape, opset=23)
    one("instance_norm", "InstanceNormalization", ["s", "b"], {"s": weights(6), "b": weights(6)}, shape)
    one("group_norm", "GroupNormalization", ["s", "b"], {"s": weights(6), "b": weights(6)}, shape, opset=21, num_groups=3)
    one("group_norm_of_groups", "GroupNormalization", ["s", "b"], {"s": weights(3), "b": weights(3)}, shape, opset=18, num_groups=3)
    one("mean_variance", "MeanVarianceNormalization", [], {}, shape, axes=[2, 3])
    one("lrn", "LRN", [], {}, shape, size=3, alpha=0.5, beta=0.6, bias=1.5)
    one("lp_norm", "LpNormalization", [], {}, shape, axis=1)
    one("lp_norm_1", "LpNormalization", [], {}, shape, axis=-1, p=1)


def reductions():
    shape = (2, 3, 4, 5)
    for op in "Sum Max Min Prod L1 L2 SumSquare LogSumExp".split():
        name = f"Reduce{op}"
        extra, constants = (["a"], {"a": ints(1, -1)}) if op == "Sum" else ([], {})
        attributes = {} if op == "Sum" else {"axes": [1, -1]}
        one(name.lower(), name, extra, constants, shape, keepdims=0, **attributes)
    case("reducelogsum", [("Exp", ["x"], {}), ("ReduceLogSum", ["y0"], {"axes": [2]})], {}, shape)
    for name, attributes in {"argmax": dict(axis=1), "argmin": dict(axis=-1, keepdims=0)}.items():
        op = "ArgMax" if name == "argmax" else "ArgMin"
        case(name, [(op, ["x"], attributes), ("Cast", ["y0"], {"to": TensorProto.FLOAT})], {}, shape)
    one("global_max", "GlobalMaxPool", [], {}, shape)
    one("global_lp", "GlobalLpPool", [], {}, shape)
    one("lp_pool", "LpPool", [], {}, shape, opset=18, kernel_shape=[2, 3], pads=[1, 0, 0, 1])


def indices():
    shape = (2, 3, 4, 5)
    at = {"i": random.integers(-4, 4, (2, 3, 2, 5))}
    case("gather_elements", [("GatherElements", ["x", "i"], {"axis": 2})], at, shape, free_batch=False)
    put = {**at, "u": weights(2, 3, 2, 5)}
    case("scatter_elements", [("ScatterElements", ["x", "i", "u"], {"axis": 2, "reduction": "add"})], put, shape, opset=18, free_batch=False)
    moved = [("Transpose", ["x"], {"perm": [1, 2, 3, 0]}), ("GatherND", ["y0", "i"], {}), ("Transpose", ["y1"], {"perm": [2, 0, 1]})]
    case("gather_nd", moved, {"i": np.array([[0, 3], [2, -1], [1, 0]])}, shape)
    put = [("Transpose", ["x"], {"perm": [1, 2, 3, 0]}), ("ScatterND", ["y0", "i", "u"], {}), ("Transpose", ["y1"], {"perm": [3, 0, 1, 2]})]
    case("scatter_nd", put, {"i": np.array([[0], [2]]), "u": np.ones((2, 4, 5, 2), np.float32)}, shape, free_batch=False)
    pick = [("ArgMax", ["x"], {"axis": 1, "keepdims": 1}), ("GatherElements", ["x", "y0"], {"axis": 1})]
    case("computed_indices", pick, {}, (2, 6))
    one_hot = [("ArgMax", ["x"], {"axis": 1, "keepdims": 0}), ("OneHot", ["y0", "d", "v"], {"axis": 1})]
    case("one_hot", one_hot, {"d": np.int64(6), "v": np.array([-1, 2], np.float32)}, (3, 6, 2))


def rearranged():
    shape = (2, 8, 4, 6)
    case("split", [("Split", ["x", "s"], {"axis": 1})], {"s": ints(8)}, shape)
    one("depth_to_space", "DepthToSpace", [], {}, shape, blocksize=2)
    one("depth_to_space_crd", "DepthToSpace", [], {}, shape, blocksize=2, mode="CRD")
    one("space_to_depth", "SpaceToDepth", [], {}, shape, blocksize=2)
    one("tile", "Tile", ["r"], {"r": ints(1, 2, 1, 3)}, shape)
    one("trilu", "Trilu", ["k"], {"k": np.int64(1)}, shape, opset=14)
    one("tril", "Trilu", [], {}, shape, opset=14, upper=0)
    one("cumsum", "CumSum", ["a"], {"a": np.int64(2)}, shape, exclusive=1, reverse=1)
    one("topk", "TopK", ["k"], {"k": ints(3)}, shape, axis=1)
    one("topk_smallest", "TopK", ["k"], {"k": ints(2)}, shape, axis=-1, largest=0)
    one("center_crop_pad", "CenterCropPad", ["z"], {"z": ints(3, 9)}, shape, opset=18, axes=[2, 3])
    for mode in ("nearest", "linear"):
        one(f"upsample_{mode}", "Upsample", ["s"], {"s": np.array([1, 1, 2, 3], np.float32)}, shape, opset=9, mode=mode)
    for label, factors in (("up", [1, 1, 1.7, 2.3]), ("down", [1, 1, 0.6, 0.5])):
        s = np.array(factors, np.float32)
        one(f"resize_cubic_{label}", "Resize", ["", "s"], {"s": s}, shape, mode="cubic")
        one(f"resize_cubic_outside_{label}", "Resize", ["", "s"], {"s": s}, shape, mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5)
        for mode in ("linear", "cubic"):
            one(f"resize_antialias_{mode}_{label}", "Resize", ["", "s"], {"s": s}, shape, opset=18, mode=mode, antialias=1)
    one("resize_axes", "Resize", ["", "s"], {"s": np.array([1.5, 2], np.float32)}, shape, opset=18, mode="linear", axes=[2, 3])


def volumes():
    shape = (2, 4, 5, 6, 4)
    one("conv_3d", "Conv", ["w", "b"], {"w": weights(6, 4, 3, 2, 3), "b": weights(6)}, shape, pads=[1, 0, 1, 1, 1, 0], strides=[2, 1, 1])
    one("conv_3d_grouped", "Conv", ["w"], {"w": weights(4, 2, 3, 3, 3)}, shape, group=2, dilations=[1, 2, 1], pads=[1, 2, 1, 1, 2, 1])
    one("conv_transpose_3d", "ConvTranspose", ["w", "b"], {"w": weights(4, 3, 2, 3, 2), "b": weights(3)}, shape, strides=[1, 2, 2], pads=[0, 1, 0, 0, 1, 1])
    one("conv_transpose_output_shape", "ConvTranspose", ["w"], {"w": weights(4, 3, 3, 3)}, (2, 4, 5, 6), strides=[2, 2], output_shape=[10, 12])
    one("conv_transpose_same", "ConvTranspose", ["w"], {"w": weights(4, 3, 3, 3)}, (2, 4, 5, 6), strides=[2, 2], auto_pad="SAME_UPPER")
    one("max_pool_3d", "MaxPool", [], {}, shape, kernel_shape=[2, 3, 2], strides=[2, 1, 1], pads=[1, 1, 0, 0, 1, 1])
    one("average_pool_3d", "AveragePool", [], {}, shape, kernel_shape=[2, 3, 2], count_include_pad=1, pads=[1, 1, 0, 0, 1, 1])
    one("global_average_3d", "GlobalAveragePool", [], {}, shape)


def sequences():
    """Attention as graphs of its parts and as a node, products by an equation, and recurrent layers."""
    shape = (2, 5, 6)
    w = {k: weights(6, 6) for k in "qkv"}
    heads = [
        ("MatMul", ["x", "q"], {}), ("MatMul", ["x", "k"], {}), ("Transpose", ["y1"], {"perm": [0, 2, 1]}), ("MatMul", ["y0", "y2"], {}),
        ("Softmax", ["y3"], {"axis": -1}), ("MatMul", ["x", "v"], {}), ("MatMul", ["y4", "y5"], {}),
    ]  # fmt: skip
    case("attention_of_parts", heads, w, shape)
    one("attention", "Attention", ["x", "x"], {}, shape, opset=23, q_num_heads=2, kv_num_heads=2, is_causal=1)
    case("einsum", [("Einsum", ["x", "x"], {"equation": "nij,nkj->nik"})], {}, shape)
    case("einsum_constant", [("Einsum", ["x", "w"], {"equation": "nij,jk->nki"})], {"w": weights(6, 3)}, shape)
    for cell, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        constants = {"w": weights(2, gates * 4, 6) * 0.5, "r": weights(2, gates * 4, 4) * 0.5, "b": weights(2, 2 * gates * 4)}
        turned = [("Transpose", ["x"], {"perm": [1, 0, 2]}), (cell, ["y0", "w", "r", "b"], {"hidden_size": 4, "direction": "bidirectional"})]
        case(cell.lower(), [*turned, ("Transpose", ["y1"], {"perm": [2, 0, 1, 3]})], constants, shape, opset=14)
    constants = {"w": weights(1, 12, 6) * 0.5, "r": weights(1, 12, 4) * 0.5}
    turned = [("Transpose", ["x"], {"perm": [1, 0, 2]}), ("GRU", ["y0", "w", "r"], {"hidden_size": 4, "linear_before_reset": 1, "direction": "reverse"})]
    case("gru_reset", [*turned, ("Transpose", ["y1"], {"perm": [2, 0, 1, 3]})], constants, shape, opset=14)


def sampled():
    shape = (2, 3, 5, 6)
    for mode in ("bilinear", "nearest", "bicubic"):
        for outside in ("zeros", "border", "reflection"):
            # A grid from the image itself: two of its channels, as places.
            grid = [("Slice", ["x", "a", "b", "c"], {}), ("Transpose", ["y0"], {"perm": [0, 2, 3, 1]}), ("Mul", ["y1", "f"], {}), ("GridSample", ["x", "y2"], {"mode": mode, "padding_mode": outside})]
            case(f"grid_sample_{mode}_{outside}", grid, {"a": ints(0), "b": ints(2), "c": ints(1), "f": np.float32(0.77)}, shape, opset=16)
    grid = [("Slice", ["x", "a", "b", "c"], {}), ("Transpose", ["y0"], {"perm": [0, 2, 3, 1]}), ("GridSample", ["x", "y1"], {"align_corners": 1})]
    case("grid_sample_corners", grid, {"a": ints(0), "b": ints(2), "c": ints(1)}, shape, opset=16)
    boxes = {"b": np.array([[0.4, 0.5, 4.7, 3.9]], np.float32), "i": ints(0)}
    for label, attributes in {"": {}, "_max": {"mode": "max"}, "_samples": {"sampling_ratio": 2, "spatial_scale": 0.7}}.items():
        case(f"roi_align{label}", [("RoiAlign", ["x", "b", "i"], {"output_height": 2, "output_width": 3, **attributes})], boxes, (1, 3, 5, 6), opset=16, free_batch=False)


if __name__ == "__main__":
    for group in (
        convolutions, matrices, elementwise, moves, windows, shapes, functions, normalisations, reductions, indices, rearranged, volumes,
        sequences, sampled,
    ):  # fmt: skip
        group()
    save_file(out, sys.argv[1])
    print(len(out) // 3, "cases")
