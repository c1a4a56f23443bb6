"""Random graphs of all supported operations, through ONNX Runtime and through resprout.

    cargo build --release -p resprout-runtime --example forward
    python bench/differential.py 0 5000
    python bench/differential.py 100000 57 --golden testdata/golden/graphs.safetensors

Each seed is a graph of a few operations with random attributes, shapes and opset. ONNX Runtime computes it for a batch and
for the first image; `forward` computes it step by step, without anything fused, as a network and as a session, for both.
Outputs must agree to 1e-5 of the largest one. What resprout refuses is counted by reason. `--keep DIR` leaves graphs and
outputs there. `--golden FILE` writes graphs, inputs and ONNX Runtime's outputs instead.
"""
import argparse
import collections
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

TOLERANCE = 1e-5
LARGEST = 20_000
# The newest that ONNX Runtime has kernels for.
LAST_OPSET = 23
# Of the golden seeds, those that are refused here.
REFUSED = {100035, 100036}
onnxruntime.set_default_logger_severity(4)


def session(model, optimise=True):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Graph:
    """Nodes so far, and what each value is for one batch of images."""

    def __init__(self, seed, small=False):
        self.random = random = np.random.default_rng(seed)
        self.small = small
        self.opset = int(random.choice(range(7, 22 if small else LAST_OPSET + 1)))
        self.nodes, self.constants, self.values, self.read = [], {}, {}, set()
        rank = int(random.choice([4, 4, 4, 4, 3, 3, 2, 5]))
        side = 5 if small else 11
        self.batch = int(random.choice([2, 3, 4] if not small else [2]))
        self.free = random.random() < 0.8
        if not self.free:
            self.batch = int(random.choice([1, 2, 4]))
        channels = int(random.integers(1, 5 if small else 9))
        shape = [self.batch, channels] + [int(random.integers(1, side)) for _ in range(rank - 2)]
        self.values["x"] = random.uniform(-2, 2, shape).astype(np.float32)

    # -- small helpers

    def pick(self, *options):
        return options[int(self.random.integers(len(options)))]

    def chance(self, p):
        return self.random.random() < p

    def upto(self, low, high):
        return int(self.random.integers(low, high + 1))

    def weights(self, *shape, scale=1.0):
        return (self.random.normal(0, 1, shape) * scale).astype(np.float32)

    def constant(self, value):
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def ints(self, *values):
        return self.constant(np.array(values, np.int64))

    def value(self, test=lambda array: True, fresh=0.7):
        """A float value that passes the test, rather one of the last."""
        names = [n for n, v in self.values.items() if v.dtype == np.float32 and test(v)]
        if not names:
            return None
        return names[-1] if self.chance(fresh) else self.pick(*names)

    def add(self, op, inputs, outputs=1, **attributes):
        """Adds a node if ONNX Runtime takes it and its result is a sound one; returns its name or None."""
        name = f"y{len(self.nodes)}"
        names = [name] + [f"{name}_{i}" for i in range(1, outputs)]
        node = helper.make_node(op, inputs, names, name=f"{op}_{len(self.nodes)}", **attributes)
        feeds = {n: self.values[n] for n in inputs if n in self.values}
        infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in feeds.items()]
        used = [numpy_helper.from_array(self.constants[n], n) for n in inputs if n in self.constants]
        kind = TensorProto.FLOAT
        for kind in (TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL):
            # A second output is of the same kind, but for indices.
            kinds = [kind] * outputs if op != "TopK" else [kind, TensorProto.INT64]
            graph = helper.make_graph([node], "g", infos, [helper.make_tensor_value_info(n, k, None) for n, k in zip(names, kinds)], used)
            try:
                results = session(self.proto(graph)).run(None, feeds)
                result = results[0]
                break
            except Exception as e:
                if "Type Error" in str(e) or "type" in str(e).lower() and kind != TensorProto.BOOL:
                    continue
                return None
        else:
            return None
        if not isinstance(result, np.ndarray) or result.size == 0 or result.size > LARGEST:
            return None
        if result.dtype == np.float32 and not (np.isfinite(result).all() and np.abs(result).max() < 1e4):
            return None
        # A difference of nearly equal values is rounding errors, for every image.
        least = np.abs(result).reshape(len(result) if result.ndim else 1, -1).max(1).min()
        if op in ("Add", "Sub") and least < 1e-3 * max(np.abs(v).max() for v in feeds.values()):
            return None
        self.nodes.append(node)
        self.values.update(zip(names, results))
        self.read.update(inputs)
        return name

    def proto(self, graph):
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8).SerializeToString()

    def model(self):
        used = {n for node in self.nodes for n in node.input}
        floats = [n for n, v in self.values.items() if n != "x" and v.dtype == np.float32]
        results = [n for n in floats if n not in used] or floats
        shape = list(self.values["x"].shape)
        info = helper.make_tensor_value_info("x", TensorProto.FLOAT, (["N"] if self.free else shape[:1]) + shape[1:])
        outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in results[-3:]]
        constants = [numpy_helper.from_array(v, n) for n, v in self.constants.items() if n in used]
        return self.proto(helper.make_graph(self.nodes, "random", [info], outputs, constants))

    # -- attributes that changed between opsets

    def with_axes(self, op, x, axes, since, **attributes):
        if self.opset < since:
            return self.add(op, [x], axes=axes, **attributes)
        return self.add(op, [x, self.ints(*axes)], **attributes)

    def window(self, array, kernel, conv):
        axes = array.ndim - 2
        attributes = {"kernel_shape": kernel} if not conv or self.chance(0.5) else {}
        if self.chance(0.6):
            attributes["strides"] = [self.upto(1, 3) for _ in range(axes)]
        if self.chance(0.25) and (conv or self.opset >= 19 or (self.opset >= 10 and self.pooling == "MaxPool")):
            attributes["dilations"] = [self.upto(1, 2) for _ in range(axes)]
        way = self.random.random()
        if way < 0.5:
            attributes["pads"] = [self.upto(0, kernel[i % axes] - 1 if not conv else 3) for i in range(2 * axes)]
        elif way < 0.7:
            # Where windows are dilated or smaller than the step, ONNX Runtime's padding of pools is not that of the standard.
            odd = not conv and ("dilations" in attributes or any(s > k for s, k in zip(attributes.get("strides", []), kernel)))
            attributes["auto_pad"] = self.pick("VALID", "NOTSET", *(() if odd else ("SAME_UPPER", "SAME_LOWER") * 2))
        return attributes

    # -- operations

    def conv(self):
        x = self.value(lambda v: v.ndim in (3, 4))
        if x is None:
            return None
        array = self.values[x]
        channels, axes = array.shape[1], array.ndim - 2
        groups = self.pick(*[g for g in (1, 1, 2, 3, channels) if channels % g == 0])
        outputs = groups * self.upto(1, 3 if self.small else 6)
        kernel = [self.pick(1, 1, 2, 3, 3, 5) for _ in range(axes)]
        weight = self.weights(outputs, channels // groups, *kernel, scale=(channels // groups * np.prod(kernel)) ** -0.5)
        if self.chance(0.2):
            weight *= self.random.random(weight.shape) < 0.2
        inputs = [x, self.constant(weight.astype(np.float32))] + ([self.constant(self.weights(outputs))] if self.chance(0.5) else [])
        y = self.add("Conv", inputs, group=groups, **self.window(array, kernel, True))
        return y and self.chance(0.5) and self.behind(y) or y

    def behind(self, y):
        """What usually stands behind a convolution."""
        if self.chance(0.5):
            y = self.batch_norm(y) or y
        return self.activation(y) if self.chance(0.6) else y

    def conv_transpose(self):
        x = self.value(lambda v: v.ndim in (3, 4) and np.prod(v.shape) < 3000)
        if x is None:
            return None
        array = self.values[x]
        channels, axes = array.shape[1], array.ndim - 2
        groups = self.pick(*[g for g in (1, 1, 2) if channels % g == 0])
        kernel = [self.upto(1, 3) for _ in range(axes)]
        strides = [self.upto(1, 2) for _ in range(axes)]
        attributes = dict(group=groups, strides=strides, kernel_shape=kernel)
        if self.chance(0.4):
            attributes["pads"] = [self.upto(0, 1) for _ in range(2 * axes)]
        if self.chance(0.3):
            attributes["output_padding"] = [self.upto(0, s - 1) for s in strides]
        weight = self.weights(channels, self.upto(1, 3), *kernel, scale=channels**-0.5)
        return self.add("ConvTranspose", [x, self.constant(weight)], **attributes)

    def pool(self):
        x = self.value(lambda v: v.ndim in (3, 4))
        if x is None:
            return None
        op = self.pooling = self.pick("MaxPool", "AveragePool")
        array = self.values[x]
        kernel = [self.upto(1, 4) for _ in range(array.ndim - 2)]
        attributes = self.window(array, kernel, False)
        if self.opset >= 10 and self.chance(0.4):
            attributes["ceil_mode"] = 1
        if op == "AveragePool" and self.chance(0.4):
            attributes["count_include_pad"] = 1
        return self.add(op, [x], **attributes)

    def resize(self):
        x = self.value(lambda v: v.ndim in (3, 4))
        if x is None or self.opset < 10:
            return None
        array = self.values[x]
        mode = self.pick("nearest", "linear", *(["cubic"] if array.ndim == 4 and self.opset >= 11 and not self.small else []))
        factor = lambda: np.float32(self.pick(1, 2, 0.5, 1.5, self.upto(1, 9) / self.upto(1, 9), self.random.uniform(0.4, 2.5)))
        scales = np.array([1, 1] + [factor() for _ in range(array.ndim - 2)], np.float32)
        if mode == "linear" and array.ndim == 3:
            scales[1] = 1
        if self.opset == 10:
            return self.add("Resize", [x, self.constant(scales)], mode=mode)
        coordinates = self.pick("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
        attributes = dict(mode=mode, coordinate_transformation_mode=coordinates)
        if mode == "nearest":
            attributes["nearest_mode"] = self.pick("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
        roi = self.constant(np.array([], np.float32))
        if self.chance(0.3) and not self.free:
            sizes = list(array.shape[:2]) + [self.upto(1, 14) for _ in range(array.ndim - 2)]
            return self.add("Resize", [x, roi, self.constant(np.array([], np.float32)) if self.opset < 13 else "", self.ints(*sizes)], **attributes)
        return self.add("Resize", [x, roi, self.constant(scales)], **attributes)

    def pad(self):
        x = self.value(lambda v: v.ndim >= 2)
        array = self.values[x]
        rank = array.ndim
        mode = self.pick("constant", "constant", "edge", "reflect", "wrap" if self.opset >= 19 else "edge")
        pads = [0] * (2 * rank)
        for axis in range(1 if rank > 2 and self.chance(0.3) else min(2, rank - 1), rank):
            for side in (0, rank):
                if self.chance(0.7):
                    pads[axis + side] = self.upto(-1 if self.chance(0.2) else 0, 3)
        if self.opset < 11:
            return self.add("Pad", [x], mode=mode, pads=pads, **({"value": 0.5} if self.chance(0.3) else {}))
        inputs = [x, self.ints(*pads)]
        if mode == "constant" and self.chance(0.3):
            inputs.append(self.constant(np.float32(self.pick(0, 1.5))))
        if self.opset >= 18 and self.chance(0.3):
            axes = [int(a) for a in self.random.permutation(rank)[: self.upto(1, rank)] if a > 0] or [rank - 1]
            inputs[1] = self.ints(*[pads[a] for a in axes], *[pads[a + rank] for a in axes])
            inputs += [""] * (3 - len(inputs)) + [self.ints(*[a - rank if self.chance(0.5) else a for a in axes])]
        return self.add("Pad", inputs, mode=mode)

    def slice(self):
        x = self.value(lambda v: v.ndim >= 2)
        shape = self.values[x].shape
        axes = [int(a) for a in self.random.permutation(np.arange(1, len(shape)))[: self.upto(1, 2)]]
        if self.chance(0.02):
            axes = [0]
        starts, ends, steps = [], [], []
        for axis in axes:
            step = self.pick(1, 1, 2, 3, -1, -2) if self.opset >= 10 else 1
            low, high = sorted((self.upto(-shape[axis], shape[axis]), self.pick(self.upto(-shape[axis], shape[axis]), 2**62)))
            starts.append(low if step > 0 else high if high < 2**31 else 2**31)
            ends.append(high if step > 0 else low if self.chance(0.6) else -(2**62))
            steps.append(step)
        axes = [a - len(shape) if self.chance(0.3) else a for a in axes]
        if self.opset < 10:
            return self.add("Slice", [x], starts=starts, ends=ends, axes=axes)
        inputs = [x, self.ints(*starts), self.ints(*ends), self.ints(*axes)]
        if self.chance(0.8) or steps != [1] * len(steps):
            inputs.append(self.ints(*steps))
        return self.add("Slice", inputs)

    def concat(self):
        x = self.value(lambda v: v.ndim >= 2)
        shape = self.values[x].shape
        axis = self.upto(1, len(shape) - 1)
        fits = lambda v: v.ndim == len(shape) and all(i == axis or v.shape[i] == shape[i] for i in range(v.ndim))
        parts = [self.value(fits, 0.2) for _ in range(self.upto(1, 3))]
        if not self.free and self.chance(0.2):
            parts.append(self.constant(self.weights(*shape)))
        self.random.shuffle(parts)
        return self.add("Concat", parts, axis=self.pick(axis, axis - len(shape)))

    def binary(self):
        x = self.value()
        shape = self.values[x].shape
        ops = ["Add", "Add", "Sub", "Mul", "Div"] + (["Max", "Min", "Sum"] if self.opset >= 8 else [])
        op = self.pick(*ops)
        if self.chance(0.5):
            other = self.value(lambda v: v.shape == shape or (v.ndim == len(shape) and all(a == b or 1 in (a, b) for a, b in zip(v.shape, shape))), 0.1)
        else:
            form = self.pick(*[[], [1]] + ([[shape[1]] + [1] * (len(shape) - 2)] * 3 + [[1, shape[1]] + [1] * (len(shape) - 2), list(shape[2:]), list(shape[-1:])] if len(shape) > 1 else []))
            other = self.constant((np.sign(self.weights(*form)) * self.random.uniform(0.5, 2, form)).astype(np.float32))
        if op == "Div" and other in self.values:
            op = "Mul"
        inputs = [x, other] if self.chance(0.7) else [other, x]
        if op == "Div":
            inputs = [x, other]
        if op in ("Max", "Min", "Sum") and self.chance(0.4):
            inputs.append(self.pick(x, self.constant(self.weights(*([1] * len(shape))))))
        y = self.add(op, inputs)
        return y and self.chance(0.3) and self.activation(y) or y

    def activation(self, x=None):
        x = x or self.value()
        op = self.pick("Relu", "Relu", "LeakyRelu", "Clip", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Neg", "Identity", "Dropout", "Sqrt")
        if not self.small and self.chance(0.4):
            return self.function(x)
        if op == "HardSwish" and self.opset < 14:
            op = "Relu"
        if op == "Clip":
            low, high = np.float32(self.pick(0, -0.5, -1)), np.float32(self.pick(6, 0.7, 1))
            if self.opset < 11:
                return self.add(op, [x], **{k: float(v) for k, v in (("min", low), ("max", high)) if self.chance(0.8)})
            return self.add(op, [x, self.constant(low) if self.chance(0.8) else "", self.constant(high)][: 3 if self.chance(0.8) else 2])
        if op == "Sqrt":
            # Away from zero, where it is steep.
            y = self.add("Sigmoid", [x])
            return y and self.add("Sqrt", [y])
        attributes = {"alpha": 0.3} if op in ("LeakyRelu", "HardSigmoid") and self.chance(0.5) else {}
        return self.add(op, [x], **attributes)

    def function(self, x):
        """Functions that are not among the usual activations; where they are steep or jump, a last bit would decide."""
        ops = ["Elu", "Selu", "Softplus", "Softsign", "Tanh", "Abs", "Sin", "Cos", "Exp", "Celu", "PRelu", "Pow"]
        ops += ["Erf", "Sinh", "Cosh", "Asinh"] * (self.opset >= 9) + ["Mish"] * (self.opset >= 18) + ["Gelu"] * 4 * (self.opset >= 20)
        op = self.pick(*ops)
        if op in ("Exp", "Sinh", "Cosh", "Pow"):
            x = self.add("Tanh", [x])
        if x is None:
            return None
        if op == "PRelu":
            shape = self.values[x].shape
            slope = self.weights(*([shape[1]] + [1] * (len(shape) - 2) if len(shape) > 1 else [1]))
            return self.add(op, [x, self.constant(slope)])
        if op == "Pow":
            return self.add(op, [x, self.constant(np.float32(self.pick(2, 3)))])
        if op == "Gelu" and self.chance(0.5):
            return self.add(op, [x], approximate="tanh")
        return self.add(op, [x], **({"alpha": 0.7} if op in ("Elu", "Celu") and self.chance(0.5) else {}))

    def norm(self):
        """Normalisations by the image's own statistics."""
        x = self.value(lambda v: v.ndim >= 3)
        if x is None:
            return None
        shape = self.values[x].shape
        way = self.pick("LayerNormalization", "LayerNormalization", "InstanceNormalization", "LpNormalization", "LRN", "GroupNormalization", "RMSNormalization")
        if way == "LayerNormalization" or way == "RMSNormalization":
            axis = self.upto(1, len(shape) - 1)
            if np.prod(shape[axis:]) == 1:
                return None
            parts = [self.constant(self.weights(*shape[axis:])) for _ in range(1 if way[0] == "R" else self.upto(1, 2))]
            return self.add(way, [x, *parts], axis=self.pick(axis, axis - len(shape)), epsilon=1e-2)
        if way == "LpNormalization":
            return self.add(way, [x], axis=self.upto(1, len(shape) - 1), p=self.upto(1, 2))
        if way == "LRN":
            return len(shape) == 4 and self.add(way, [x], size=self.upto(1, 4), alpha=0.3, beta=0.6, bias=1.2) or None
        groups = self.pick(*[g for g in (1, 2, 3, shape[1]) if shape[1] % g == 0])
        if way == "InstanceNormalization" and np.prod(shape[2:]) == 1:
            return None  # One pixel minus itself.
        parts = [self.constant(self.weights(shape[1])) for _ in range(2)]
        more = {"num_groups": groups} if way == "GroupNormalization" else {}
        return self.add(way, [x, *parts], epsilon=1e-2, **more)

    def reduce(self):
        x = self.value(lambda v: v.ndim >= 2)
        rank = self.values[x].ndim
        op = self.pick("Sum", "Max", "Min", "L1", "L2", "SumSquare", "LogSumExp")
        axes = sorted(int(a) for a in self.random.permutation(np.arange(1, rank))[: self.upto(1, rank - 1)])
        return self.with_axes("Reduce" + op, x, axes, 13 if op == "Sum" else 18, keepdims=self.pick(0, 1))

    def split(self):
        x = self.value(lambda v: v.ndim >= 2 and max(v.shape[1:]) > 1)
        if x is None or self.opset < 13:
            return None
        shape = self.values[x].shape
        axis = self.pick(*[a for a in range(1, len(shape)) if shape[a] > 1])
        first = self.upto(1, shape[axis] - 1)
        inputs = [x, self.ints(first, shape[axis] - first)]
        y = self.add("Split", inputs, outputs=2, axis=self.pick(axis, axis - len(shape)))
        if y and 2 * first == shape[axis] and self.chance(0.6):
            return self.add("Mul", [y, y + "_1"])
        return y and self.chance(0.5) and self.add("Concat", [y + "_1", y], axis=axis) or y

    def rearrange(self):
        x = self.value(lambda v: v.ndim == 4)
        if x is None:
            return None
        shape = self.values[x].shape
        op = self.pick("DepthToSpace", "SpaceToDepth", "Tile", "CumSum", "Trilu", "TopK", "Upsample")
        if op in ("DepthToSpace", "SpaceToDepth"):
            mode = {"mode": "CRD"} if op[0] == "D" and self.opset >= 11 and self.chance(0.5) else {}
            return self.add(op, [x], blocksize=2, **mode)
        if op == "Tile":
            return self.add(op, [x, self.ints(1, *[self.upto(1, 2) for _ in shape[1:]])])
        if op == "CumSum":
            axis = self.constant(np.int64(self.upto(1, 3)))
            return self.add(op, [x, axis], exclusive=self.pick(0, 1), reverse=self.pick(0, 1))
        if op == "Trilu":
            return self.add(op, [x, self.constant(np.int64(self.upto(-2, 2)))], upper=self.pick(0, 1))
        if op == "Upsample":
            return self.add(op, [x, self.constant(np.array([1, 1, 2, 3], np.float32))], mode=self.pick("nearest", "linear")) if self.opset == 9 else None
        axis = self.upto(1, 3)
        y = self.add(op, [x, self.ints(self.upto(1, shape[axis]))], outputs=2, axis=axis, largest=self.pick(0, 1)) if self.opset >= 11 else None
        if y and self.chance(0.5):
            places = self.add("Cast", [y + "_1"], to=TensorProto.FLOAT)
            return places and self.add("Add", [y, places])
        return y

    def choose(self):
        """Comparisons with a number that no value is near, and what is chosen by them."""
        x = self.value()
        array = np.sort(self.values[x].ravel())
        if self.opset < 11 or array.size < 2:
            return None
        gaps = np.diff(array)
        at = int(gaps.argmax())
        limit = self.constant(np.float32((array[at] + array[at + 1]) / 2))
        holds = self.add(self.pick("Less", "Greater"), [x, limit])
        if holds and self.chance(0.4):
            holds = self.add("Not", [holds])
        if holds and self.chance(0.5):
            number = self.add("Cast", [holds], to=TensorProto.FLOAT)
            return number and self.add("Mul", [x, number])
        return holds and self.add("Where", [holds, x, self.constant(np.float32(0.3))])

    def equation(self):
        x = self.value(lambda v: v.ndim in (3, 4))
        if x is None or self.opset < 12:
            return None
        letters = "nabc"[: self.values[x].ndim]
        last = letters[-1]
        if self.chance(0.5):
            out = [c for c in letters if c != last]
            order = "".join(self.random.permutation(out[1:])) if len(out) > 1 else ""
            weight = self.constant(self.weights(self.values[x].shape[-1], 3, scale=0.4))
            return self.add("Einsum", [x, weight], equation=f"{letters},{last}z->n{order}z")
        other = letters[:-2] + "z" + last
        return self.add("Einsum", [x, x], equation=f"{letters},{other}->{letters[:-1]}z")

    def recurrent(self):
        x = self.value(lambda v: v.ndim == 3)
        if x is None or self.opset < 14:
            return None
        width, hidden = self.values[x].shape[2], self.upto(1, 4)
        cell, gates = self.pick(("LSTM", 4), ("GRU", 3), ("RNN", 1))
        direction = self.pick("forward", "reverse", "bidirectional")
        both = 2 if direction == "bidirectional" else 1
        turned = self.add("Transpose", [x], perm=[1, 0, 2])
        parts = [self.weights(both, gates * hidden, width, scale=0.5), self.weights(both, gates * hidden, hidden, scale=0.5)]
        if self.chance(0.6):
            parts.append(self.weights(both, 2 * gates * hidden, scale=0.5))
        more = {"linear_before_reset": self.pick(0, 1)} if cell == "GRU" else {}
        y = turned and self.add(cell, [turned, *[self.constant(p) for p in parts]], hidden_size=hidden, direction=direction, **more)
        return y and self.add("Transpose", [y], perm=[2, 0, 1, 3])

    def volume(self):
        x = self.value(lambda v: v.ndim == 5)
        if x is None:
            return None
        channels = self.values[x].shape[1]
        kernel = [self.upto(1, 3) for _ in range(3)]
        pads = [self.upto(0, k - 1) for k in kernel * 2]
        if self.chance(0.4):
            return self.add(self.pick("MaxPool", "AveragePool"), [x], kernel_shape=kernel, pads=pads, strides=[self.upto(1, 2) for _ in range(3)])
        groups = self.pick(*[g for g in (1, 1, 2, channels) if channels % g == 0])
        outputs = groups * self.upto(1, 3)
        weight = self.weights(outputs, channels // groups, *kernel, scale=(channels * np.prod(kernel)) ** -0.5)
        return self.add("Conv", [x, self.constant(weight)], group=groups, pads=pads, kernel_shape=kernel)

    def sample(self):
        x = self.value(lambda v: v.ndim == 4 and v.shape[1] >= 2)
        if x is None or self.opset < 16:
            return None
        part = self.add("Slice", [x, self.ints(0), self.ints(2), self.ints(1)])
        small = part and self.add("Sin", [part])
        grid = small and self.add("Transpose", [small], perm=[0, 2, 3, 1])
        # Cubic and nearest sampling turn a last bit into another pixel.
        mode = "bilinear" if self.opset < 20 else "linear"
        return grid and self.add("GridSample", [x, grid], mode=mode, padding_mode=self.pick("zeros", "border", "reflection"), align_corners=self.pick(0, 1))

    def batch_norm(self, x=None):
        x = x or self.value(lambda v: v.ndim >= 2)
        c = self.values[x].shape[1]
        parts = [self.weights(c), self.weights(c), self.weights(c), self.random.uniform(0.3, 2, c).astype(np.float32)]
        return self.add("BatchNormalization", [x] + [self.constant(p) for p in parts], epsilon=self.pick(1e-5, 1e-3))

    def gemm(self):
        x = self.value(lambda v: v.ndim == 2)
        if x is None:
            x = self.flat()
            if x is None:
                return None
        rows, k = self.values[x].shape
        n = self.upto(1, 4 if self.small else 12)
        attributes = {}
        transposed = self.chance(0.5)
        weight = self.weights(*((n, k) if transposed else (k, n)), scale=k**-0.5)
        if transposed:
            attributes["transB"] = 1
        if self.chance(0.2):
            attributes["alpha"] = 0.5
        inputs = [x, self.constant(weight)]
        if self.chance(0.6):
            inputs.append(self.constant(self.weights(*self.pick([n], [1, n], [1], []))))
            if self.chance(0.2):
                attributes["beta"] = 2.0
        elif self.opset < 11:
            inputs.append(self.constant(np.zeros(n, np.float32)))
        y = self.add("Gemm", inputs, **attributes)
        return y and self.chance(0.3) and self.activation(y) or y

    def matmul(self):
        x = self.value(lambda v: v.ndim >= 2)
        shape = self.values[x].shape
        if self.chance(0.3) and len(shape) >= 3:
            perm = list(range(len(shape)))
            perm[-1], perm[-2] = perm[-2], perm[-1]
            t = self.add("Transpose", [x], perm=perm)
            return t and self.add("MatMul", self.pick([x, t], [t, x]))
        lead = [1] * self.upto(0, len(shape) - 2) if self.chance(0.3) else []
        return self.add("MatMul", [x, self.constant(self.weights(*lead, shape[-1], self.upto(1, 6), scale=shape[-1] ** -0.5))])

    def softmax(self):
        x = self.value(lambda v: v.ndim >= 2)
        axis = self.upto(1, self.values[x].ndim - 1) if not self.chance(0.03) else 0
        attributes = {"axis": self.pick(axis, axis - self.values[x].ndim) if self.opset >= 11 else axis} if self.chance(0.8) else {}
        return self.add(self.pick("Softmax", "Softmax", "LogSoftmax"), [x], **attributes)

    def mean(self):
        x = self.value(lambda v: v.ndim >= 3)
        if x is None:
            return None
        rank = self.values[x].ndim
        if self.chance(0.4):
            return self.add("GlobalAveragePool", [x])
        axes = sorted(int(a) for a in self.random.permutation(np.arange(1, rank))[: self.upto(1, rank - 1)])
        if self.chance(0.5):
            axes = list(range(2, rank))
        if self.chance(0.02):
            axes = [0]
        axes = [a - rank for a in axes] if self.opset >= 11 and self.chance(0.4) else axes
        return self.with_axes("ReduceMean", x, axes, 18, **({"keepdims": self.pick(0, 1)} if self.chance(0.7) else {}))

    def flat(self):
        x = self.value(lambda v: v.ndim >= 2)
        shape = self.values[x].shape
        if self.chance(0.6):
            return self.add("Flatten", [x], **({"axis": 1} if self.chance(0.5) else {}))
        return self.add("Reshape", [x, self.ints(self.pick(0, -1), int(np.prod(shape[1:])))])

    def reshape(self):
        x = self.value(lambda v: v.ndim >= 2)
        shape = list(self.values[x].shape)
        if self.chance(0.4):
            # Channels apart, as a shuffle does, or axes put together.
            axis = self.upto(1, len(shape) - 1)
            parts = [d for d in (2, 3, 4) if shape[axis] % d == 0]
            if parts:
                target = [0] + shape[1:axis] + [self.pick(*parts), -1] + shape[axis + 1 :]
            else:
                target = [0, -1] + shape[3:]
        else:
            target = [0, self.pick(0, shape[1]), -1] if len(shape) > 2 else [0, -1, 1, 1]
        y = self.add("Reshape", [x, self.ints(*target)])
        if y and self.chance(0.5) and self.values[y].ndim > 2:
            y = self.transpose(y)
        return y

    def transpose(self, x=None):
        x = x or self.value(lambda v: v.ndim >= 3)
        if x is None:
            return None
        rank = self.values[x].ndim
        perm = [0] + [1 + int(a) for a in self.random.permutation(rank - 1)]
        if self.chance(0.05):
            perm = [int(a) for a in self.random.permutation(rank)]
            y = self.add("Transpose", [x], perm=perm)
            y = y and self.activation(y)
            return y and self.add("Transpose", [y], perm=[perm.index(a) for a in range(rank)])
        return self.add("Transpose", [x], perm=perm)

    def squeeze(self):
        x = self.value(lambda v: v.ndim >= 2)
        shape = self.values[x].shape
        ones = [a for a in range(1, len(shape)) if shape[a] == 1]
        if ones and self.chance(0.7):
            axes = [a - len(shape) if self.opset >= 11 and self.chance(0.3) else a for a in ones[: self.upto(1, len(ones))]]
            return self.with_axes("Squeeze", x, axes, 13)
        if len(shape) >= 5:
            return None
        axes = sorted(int(a) for a in self.random.permutation(np.arange(1, len(shape) + 1))[: self.upto(1, 2)])
        return self.with_axes("Unsqueeze", x, axes, 13)

    def gather(self):
        x = self.value(lambda v: v.ndim >= 2)
        shape = self.values[x].shape
        axis = self.upto(1, len(shape) - 1)
        indices = self.random.integers(-shape[axis] if self.opset >= 11 else 0, shape[axis], self.pick([], [2], [1], [2, 2]))
        return self.add("Gather", [x, self.constant(np.array(indices, np.int64))], axis=axis)

    def expand(self):
        x = self.value(lambda v: 2 <= v.ndim <= 4)
        if x is None or self.opset < 8:
            return None
        target = [self.pick(1, d) if d > 1 else self.upto(1, 3) for d in self.values[x].shape]
        target[0] = 1
        return self.add("Expand", [x, self.ints(*target)])

    def chain(self):
        """A shape that is computed, and a reshape to it."""
        x = self.value(lambda v: v.ndim >= 2)
        shape = list(self.values[x].shape)
        s = self.add("Shape", [x])
        if s is None:
            return None
        if self.opset >= 10 and self.chance(0.5):
            first = self.add("Slice", [s, self.ints(0), self.ints(1), self.ints(0)])
        else:
            n = self.add("Gather", [s, self.constant(np.int64(0))], axis=0)
            first = n and self.with_axes("Unsqueeze", n, [0], 13)
        if first is None:
            return None
        way = self.upto(0, 3)
        if way == 0 or len(shape) < 3 or self.opset < 10:
            rest = self.ints(-1)
        elif way == 1:
            channels = self.add("Gather", [s, self.ints(1)], axis=0)
            doubled = channels and self.add("Mul", [channels, self.ints(2)])
            halved = doubled and self.add("Div", [doubled, self.ints(2)])
            rest = halved and self.add("Concat", [halved, self.ints(-1)], axis=0)
        elif way == 2:
            tail = self.add("Slice", [s, self.ints(1), self.ints(len(shape)), self.ints(0)])
            rest = tail and self.with_axes("ReduceProd", tail, [0], 18, keepdims=1)
        else:
            tail = self.add("Slice", [s, self.ints(1), self.ints(3), self.ints(0)])
            same = tail and self.opset >= 11 and self.add("Equal", [tail, self.ints(-1)])
            chosen = same and self.add("Where", [same, self.ints(1, 1), tail])
            lower = chosen and self.opset >= 12 and self.add("Max", [chosen, self.ints(1, 1)])
            rest = lower and self.add("Concat", [lower, self.ints(-1)], axis=0)
        target = rest and self.add("Concat", [first, rest], axis=0)
        return target and self.add("Reshape", [x, target])

    def arithmetic(self):
        """Numbers that follow from constants and shapes, as exporters write them."""
        x = self.value(lambda v: v.ndim >= 2)
        if self.opset < 13:
            return None
        shape = self.values[x].shape
        s = self.add("Shape", [x], **({"start": 1} if self.opset >= 15 else {}))
        last = s and self.add("Gather", [s, self.constant(np.int64(-1))], axis=0)
        if last is None:
            return None
        way = self.upto(0, 3)
        if way == 0:
            row = self.add("Range", [self.constant(np.int64(0)), last, self.constant(np.int64(1))])
            row = row and self.add("Mod", [self.add("Neg", [row]), self.constant(np.int64(3))])
            row = row and self.add("Cast", [row], to=TensorProto.FLOAT)
        elif way == 1:
            number = self.add("Cast", [last], to=TensorProto.FLOAT)
            number = number and self.add("Sqrt", [number])
            row = number and self.add("Expand", [self.add("Floor", [number]), self.ints(1, shape[-1])])
        elif way == 2:
            length = self.with_axes("Unsqueeze", last, [0], 13)
            row = length and self.add("ConstantOfShape", [length], value=numpy_helper.from_array(np.array([0.5], np.float32)))
        else:
            if self.opset < 15:
                return None
            row = self.add("CastLike", [last, x])
            row = row and self.add("Min", [row, self.constant(np.float32(2.5))])
        return row and self.add(self.pick("Add", "Mul"), [x, row])


WAYS_TO_GO = [
    (Graph.conv, 7), (Graph.conv_transpose, 1), (Graph.pool, 3), (Graph.resize, 2), (Graph.pad, 3), (Graph.slice, 2),
    (Graph.concat, 2), (Graph.binary, 4), (Graph.activation, 3), (Graph.batch_norm, 2), (Graph.gemm, 2), (Graph.matmul, 1),
    (Graph.softmax, 1), (Graph.mean, 2), (Graph.flat, 1), (Graph.reshape, 1), (Graph.transpose, 1), (Graph.squeeze, 1),
    (Graph.gather, 1), (Graph.expand, 1), (Graph.chain, 1), (Graph.arithmetic, 1),
]  # fmt: skip
# Not in small graphs, so that those of the golden file stay as they are.
MORE_WAYS = [
    (Graph.norm, 3), (Graph.reduce, 2), (Graph.split, 2), (Graph.rearrange, 2), (Graph.choose, 1), (Graph.equation, 1),
    (Graph.recurrent, 1), (Graph.volume, 4), (Graph.sample, 1),
]  # fmt: skip


def make(seed, small=False):
    """A model, its input, and ONNX Runtime's outputs for the batch and for the first image; None where there is nothing."""
    graph = Graph(seed, small)
    steps, weights = zip(*WAYS_TO_GO, *([] if small else MORE_WAYS))
    chosen = graph.random.choice(len(steps), graph.upto(1, 4 if small else 9), p=np.array(weights) / sum(weights))
    for index in chosen:
        steps[index](graph)
    if not graph.nodes or all(v.dtype != np.float32 for n, v in graph.values.items() if n != "x"):
        return None
    model, x = graph.model(), graph.values["x"]
    try:
        expected = {"": session(model).run(None, {"x": x})}
    except Exception:
        # ONNX Runtime infers other shapes than it computes, and refuses the graph.
        return None
    if graph.free:
        try:
            expected["1"] = session(model).run(None, {"x": x[:1]})
        except Exception:
            pass
    elif x.shape[0] == 1:
        expected["1"] = expected[""]
    return model, x, expected


def unsteady(model, x, expected, one):
    """Whether ONNX Runtime itself differs when it optimises nothing, or moves much for a last bit of the input."""
    feed = x[:1] if one else x
    others = [session(model, False).run(None, {"x": feed}), session(model).run(None, {"x": np.nextafter(feed, np.float32(9))})]
    return any(difference(a, b) > TOLERANCE / 10 for other in others for a, b in zip(expected, other))


def difference(a, b):
    if a.shape != b.shape:
        return np.inf
    worst = np.abs(a - b).max() / max(np.abs(b).max(), 1e-6)
    return np.inf if np.isnan(worst) else worst


def compare(folder, name, way, model, x, expected):
    """'' if all outputs agree, or what is wrong."""
    one = "1" if way.endswith("1") else ""
    if one not in expected:
        return ""
    for index, right in enumerate(expected[one]):
        found = np.load(folder / f"{name}.{way}.{index}.npy")
        off = difference(found, right)
        if off > TOLERANCE and not (off < 1e-3 and unsteady(model, x, expected[one], one)):
            return f"output {index}: {found.shape} for {right.shape}, off by {off:.2e}"
    return ""


def reason(text):
    """Without names and numbers."""
    text = re.sub(r'^[^:]*\.onnx: ', "", text)
    return re.sub(r"\[[^\]]*\]", "[..]", re.sub(r"\d+", "#", re.sub(r'"[^"]*"', '".."', text)))


def run(seeds, keep, forward):
    counts, refused, wrong, operations = collections.Counter(), collections.Counter(), [], collections.Counter()
    for start in range(0, len(seeds), 250):
        with tempfile.TemporaryDirectory() as temporary:
            folder, cases = pathlib.Path(keep or temporary), {}
            for seed in seeds[start : start + 250]:
                case = make(seed)
                if case is None:
                    counts["empty"] += 1
                    continue
                name = f"{seed:06}"
                cases[name] = case
                (folder / f"{name}.onnx").write_bytes(case[0])
                np.save(folder / f"{name}.npy", case[1])
                operations.update(node.op_type for node in onnx.load_from_string(case[0]).graph.node)
            lines = subprocess.run([forward, str(folder)], capture_output=True, text=True)
            if lines.returncode:
                sys.exit(f"{forward}: {lines.stderr}")
            for line in lines.stdout.splitlines():
                name, way, result, *text = line.split("\t")
                if name not in cases:
                    continue
                counts[result] += 1
                if result == "refused":
                    refused[(way, reason(text[0]))] += 1
                elif result == "panic":
                    wrong.append((name, way, "panic"))
                elif error := compare(folder, name, way, *cases[name]):
                    wrong.append((name, way, error))
        print(f"{start + len(cases)} seeds: {dict(counts)}, {len(wrong)} wrong", file=sys.stderr)
    print(f"{len(seeds)} seeds, {sum(operations.values())} nodes of {len(operations)} operations")
    print(f"runs compared {counts['ok']}, wrong {len(wrong)}, refused {counts['refused']}, empty graphs {counts['empty']}")
    for (way, text), count in sorted(refused.items(), key=lambda item: -item[1]):
        print(f"  refused {count:5} {way}: {text}")
    for name, way, error in wrong[:60]:
        print(f"  WRONG {name} {way}: {error}")
    return bool(wrong)


def golden(seeds, path):
    from safetensors.numpy import save_file

    out = {}
    for seed in seeds:
        # A window that is larger than its padded input is refused here, and computed by ONNX Runtime.
        if (case := make(seed, small=True)) and seed not in REFUSED:
            model, x, expected = case
            out[f"{seed:02}.model"], out[f"{seed:02}.input"] = np.frombuffer(model, np.uint8), x
            out.update({f"{seed:02}.output.{index}": value for index, value in enumerate(expected[""])})
    # It writes the numbers of a transposed array in their old order.
    save_file({name: np.ascontiguousarray(value) for name, value in out.items()}, path)
    print(sum(key.endswith(".model") for key in out), "graphs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--keep")
    parser.add_argument("--forward", default="target/release/examples/forward")
    parser.add_argument("--golden")
    args = parser.parse_args()
    seeds = range(args.first, args.first + args.count)
    sys.exit(golden(seeds, args.golden) if args.golden else run(seeds, args.keep, args.forward))
