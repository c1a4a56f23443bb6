"""Golden outputs of networks that take bytes, or images with their channels last, from ONNX Runtime.

    pip install -r testdata/gen/requirements.txt
    python testdata/gen/inputs.py testdata/golden/inputs.safetensors

For each case the file holds NAME.model (the bytes of a small ONNX model), NAME.input and NAME.output.
Inputs are numbers, also where they are fed as bytes, in the model's own order of axes.
"""
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

random = np.random.default_rng(0)
out = {}
MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
FIRST, LAST = (-1, 1, 1), (-1,)


def weights(*shape):
    return random.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32)


def case(name, element, shape, head, constants):
    """`head`: (op, inputs, attributes) in order from the input x to channels first; a small network follows."""
    nodes = head + [
        ("Conv", [f"y{len(head) - 1}" if head else "x", "w"], {"pads": [1] * 4}),
        ("BatchNormalization", ["#", "g", "be", "m", "v"], {}),
        ("Relu", ["#"], {}),
        ("Conv", ["#", "w2", "b2"], {"strides": [2, 2]}),
        ("Relu", ["#"], {}),
        ("GlobalAveragePool", ["#"], {}),
        ("Flatten", ["#"], {}),
        ("Gemm", ["#", "w3", "b3"], {}),
    ]
    channels = 1 if 1 in shape[1:] else 3
    constants = constants | {
        "w": weights(8, channels, 3, 3), "w2": weights(12, 8, 3, 3), "b2": weights(12), "w3": weights(12, 5), "b3": weights(5),
        "g": 1 + weights(8), "be": weights(8), "m": weights(8), "v": 1 + weights(8) ** 2,
    }
    made = []
    for i, (op, inputs, attributes) in enumerate(nodes):
        inputs = [f"y{i - 1}" if value == "#" else value for value in inputs]
        made.append(helper.make_node(op, inputs, [f"y{i}"], name=f"{op.lower()}_{i}", **attributes))
    used = {value for node in made for value in node.input}
    graph = helper.make_graph(
        made, name,
        [helper.make_tensor_value_info("x", element, ["N", *shape[1:]])],
        [helper.make_tensor_value_info(made[-1].output[0], TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(value, key) for key, value in constants.items() if key in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    data = model.SerializeToString()
    images = random.integers(0, 256, shape).astype(np.uint8)
    if element != TensorProto.UINT8:
        images = images.astype(np.float32) / 255
    result = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": images})[0]
    out[name + ".model"] = np.frombuffer(data, np.uint8)
    out[name + ".input"], out[name + ".output"] = images.astype(np.float32), result


def main():
    cast, to_first = ("Cast", ["x"], {"to": TensorProto.FLOAT}), ("Transpose", ["#"], {"perm": [0, 3, 1, 2]})
    scale = np.float32(1 / 255)
    norm = lambda axes: {"scale": scale, "mean": MEAN.reshape(axes), "std": STD.reshape(axes)}
    scaled = [("Mul", ["#", "scale"], {}), ("Sub", ["#", "mean"], {}), ("Div", ["#", "std"], {})]
    case("bytes_first", TensorProto.UINT8, (3, 3, 12, 10), [cast, *scaled], norm(FIRST))
    case("bytes_last", TensorProto.UINT8, (3, 12, 10, 3), [cast, *scaled, to_first], norm(LAST))
    # As tf2onnx writes a Keras network: the Transpose first, arithmetic behind.
    moved = ("Transpose", ["x"], {"perm": [0, 3, 1, 2]})
    case("bytes_moved", TensorProto.UINT8, (3, 12, 10, 3), [moved, ("Cast", ["#"], {"to": TensorProto.FLOAT}), *scaled], norm(FIRST))
    case("floats_last", TensorProto.FLOAT, (3, 12, 10, 3), [moved], {})
    case("floats_last_normalised", TensorProto.FLOAT, (3, 12, 10, 3), [("Sub", ["x", "mean"], {}), ("Div", ["#", "std"], {}), to_first], norm(LAST))
    case("grey_last", TensorProto.UINT8, (3, 14, 14, 1), [cast, ("Div", ["#", "most"], {}), to_first], {"most": np.float32(255)})
    # BGR, by a Gather of the bytes, and a BatchNormalization of the pixels.
    swap = ("Gather", ["x", "bgr"], {"axis": 1})
    pixels = {"bgr": np.int64([2, 1, 0]), "pg": np.float32([1, 1, 1]), "pb": np.float32([0, 0, 0]), "pm": 255 * MEAN, "pv": (255 * STD) ** 2}
    case("bytes_swapped", TensorProto.UINT8, (3, 3, 12, 10), [swap, ("Cast", ["#"], {"to": TensorProto.FLOAT}), ("BatchNormalization", ["#", "pg", "pb", "pm", "pv"], {})], pixels)
    save_file(out, sys.argv[1])
    print(len(out) // 3, "cases")


if __name__ == "__main__":
    main()
