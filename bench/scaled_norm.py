"""The same network with weights so small that the variance in front of every BatchNormalization is near its epsilon.

    python bench/scaled_norm.py MODEL.onnx OUT.onnx

Each convolution that a BatchNormalization follows is multiplied by s, and the running statistics by s and s^2. gamma changes
so that the dense network computes what it did. Only epsilon weighs more.
"""
import pathlib
import sys

import numpy as np
import onnx
from onnx import numpy_helper


def scale(source, target):
    model = onnx.load(str(source))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    values = {name: numpy_helper.to_array(tensor).astype(np.float64) for name, tensor in tensors.items()}
    made_by = {node.output[0]: node for node in model.graph.node}
    changed = {}
    for norm in (node for node in model.graph.node if node.op_type == "BatchNormalization"):
        conv = made_by[norm.input[0]]
        gamma, _, mean, var = norm.input[1:5]
        epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
        s = np.sqrt(epsilon / np.median(values[var]))
        changed[conv.input[1]] = values[conv.input[1]] * s
        changed[mean], changed[var] = values[mean] * s, values[var] * s * s
        changed[gamma] = values[gamma] * np.sqrt(changed[var] + epsilon) / (s * np.sqrt(values[var] + epsilon))
    for name, value in changed.items():
        tensors[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
    onnx.save(model, str(target))
    return pathlib.Path(target)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    scale(*sys.argv[1:])
