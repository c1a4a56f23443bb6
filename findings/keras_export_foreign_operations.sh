#!/usr/bin/env bash
# Keras 3.15.1 on tensorflow-cpu 2.21.0, tf2onnx 1.17.0, seen 2026-11-30.
# Expected: Model.export(format="onnx") of a layer that it cannot translate raises, or writes operations of ONNX.
# Seen: it returns, and the file holds TensorFlow's Erfc for an exact GELU, and StatefulPartitionedCall for a Conv2D with groups.
# ONNX has neither, so that onnx.checker and ONNX Runtime refuse the file. The names are only in the log. approximate=True for GELU,
# and DepthwiseConv2D in place of a Conv2D with as many groups as channels, are exported.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q keras==3.15.1 tensorflow-cpu==2.21.0 tf2onnx==1.17.0 onnx==1.23.2
cd "$folder"
KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES="" "$folder/venv/bin/python" - 2>"$folder/log" <<'PY' || { tail "$folder/log"; exit 1; }
import keras, numpy, onnx
from keras import layers, ops
cases = {
    "exact GELU": (layers.Activation("gelu"), "Erfc"),
    "Conv2D with groups": (layers.Conv2D(4, 3, groups=4), "StatefulPartitionedCall"),
    "approximate GELU": (layers.Activation(lambda x: ops.gelu(x, approximate=True)), None),
    "DepthwiseConv2D": (layers.DepthwiseConv2D(3), None),
}
for name, (layer, foreign) in cases.items():
    image = layers.Input((8, 8, 4))
    network = keras.Model(image, layer(image))
    network(numpy.zeros((1, 8, 8, 4), "float32"))
    network.export("network.onnx", format="onnx", verbose=False)
    model = onnx.load("network.onnx")
    operations = sorted({node.op_type for node in model.graph.node})
    try:
        onnx.checker.check_model(model)
        valid = True
    except onnx.checker.ValidationError:
        valid = False
    print(f"{name}: the export returned; operations {operations}; valid ONNX: {valid}")
    assert valid == (foreign is None) and (foreign in operations or foreign is None), "this has changed"
PY
