"""Multiplies every BatchNormalization into the convolution before it, as exporters do, and compares with ONNX Runtime.

fold_batch_norm.py MODEL.onnx FOLDED.onnx
"""

import sys

import numpy as np
import onnx
from onnx import numpy_helper


def fold(model):
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    numbers = lambda name: numpy_helper.to_array(tensors[name]).astype(np.float64)
    writer = {output: node for node in graph.node for output in node.output}
    count = 0
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        conv = writer[norm.input[0]]
        readers = sum(norm.input[0] in node.input for node in graph.node)
        if conv.op_type != "Conv" or readers != 1:
            continue
        gamma, beta, mean, var = map(numbers, norm.input[1:5])
        epsilon = next((a.f for a in norm.attribute if a.name == "epsilon"), 1e-5)
        factor = gamma / np.sqrt(var + epsilon)
        weight = numbers(conv.input[1])
        bias = numbers(conv.input[2]) if len(conv.input) > 2 else 0.0
        weight *= factor.reshape(-1, *[1] * (weight.ndim - 1))
        bias = (bias - mean) * factor + beta
        name = conv.input[1] + ".bias"
        tensors[conv.input[1]].CopyFrom(numpy_helper.from_array(weight.astype(np.float32), conv.input[1]))
        graph.initializer.append(numpy_helper.from_array(bias.astype(np.float32), name))
        del conv.input[2:]
        conv.input.append(name)
        conv.output[0] = norm.output[0]
        graph.node.remove(norm)
        count += 1
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
    return count


def main():
    import onnxruntime

    source, target = sys.argv[1:]
    model = onnx.load(source)
    count = fold(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)
    outputs = []
    for path in (source, target):
        session = onnxruntime.InferenceSession(path)
        value = session.get_inputs()[0]
        shape = [dim if isinstance(dim, int) else 2 for dim in value.shape]
        images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        outputs.append(session.run(None, {value.name: images})[0])
    difference = np.abs(outputs[0] - outputs[1]).max() / np.abs(outputs[0]).max()
    print(f"{target}: {count} BatchNormalizations folded; outputs differ by {difference:.1e} of the largest")


if __name__ == "__main__":
    main()
