#!/usr/bin/env bash
# Keras 3.15.1 on tensorflow-cpu 2.21.0, tf2onnx 1.17.0, seen 2026-11-30.
# Expected: Model.export(format="onnx") of a network that begins with a Normalization layer takes images alone: mean and variance of
# the layer are constants of the file, as those of BatchNormalization are.
# Seen: the file has two more inputs, for the mean and the square root of the variance, and their numbers are nowhere in it. The
# export succeeds. keras.applications' EfficientNets and ConvNeXts, which begin so, cannot be run from their files.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q keras==3.15.1 tensorflow-cpu==2.21.0 tf2onnx==1.17.0 onnx==1.23.2 onnxruntime==1.32.0
cd "$folder"
KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES="" "$folder/venv/bin/python" - 2>"$folder/log" <<'PY' || { tail "$folder/log"; exit 1; }
import keras, numpy, onnx, onnxruntime
x = image = keras.layers.Input((8, 8, 3))
x = keras.layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.25, 0.5, 0.75])(x)
x = keras.layers.Conv2D(4, 3)(x)
network = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
network(numpy.zeros((1, 8, 8, 3), "float32"))
network.export("network.onnx", format="onnx", verbose=False)
graph = onnx.load("network.onnx").graph
inputs = [value.name for value in graph.input]
print("expected: 1 input; seen:", inputs)
numbers = [onnx.numpy_helper.to_array(tensor).ravel() for tensor in graph.initializer]
kept = any(part.size == 3 and numpy.allclose(part, [0.1, 0.2, 0.3]) for part in numbers)
print("the mean is among the file's numbers:", kept)
session = onnxruntime.InferenceSession("network.onnx", providers=["CPUExecutionProvider"])
try:
    session.run(None, {inputs[0]: numpy.zeros((1, 8, 8, 3), "float32")})
    refused = False
except ValueError as error:
    print("ONNX Runtime:", error)
    refused = True
assert len(inputs) == 3 and not kept and refused, "this has changed"
PY
