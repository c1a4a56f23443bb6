#!/usr/bin/env bash
# onnx 1.23.2 with ONNX Runtime 1.32.0, seen 2026-12-01.
# Expected: onnx.version_converter keeps what the network computes. Up to opset 10 a linear Upsample or Resize has no choice of coordinates:
# ONNX Runtime divides the output's coordinate by the scale, which opset 11 calls asymmetric.
# Seen: the converter writes no coordinate_transformation_mode, so that the default of opset 11, half_pixel, holds in the converted file.
# The feature map moves by up to half a pixel, without a warning. With the attribute asymmetric added it is what it was.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0
"$folder/venv/bin/python" - <<'PY'
import numpy, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper, version_converter
x = numpy.arange(4, dtype=numpy.float32).reshape(1, 1, 1, 4)
def run(model):
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0].ravel().tolist()
scales = numpy_helper.from_array(numpy.array([1, 1, 1, 2], numpy.float32), "scales")
value = lambda name, width: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 1, width])
for operation, opset in (("Upsample", 9), ("Resize", 10)):
    node = helper.make_node(operation, ["x", "scales"], ["y"], mode="linear")
    graph = helper.make_graph([node], "double", [value("x", 4)], [value("y", 8)], [scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)
    before = run(model)
    converted = version_converter.convert_version(model, 13)
    resize, = [node for node in converted.graph.node if node.op_type == "Resize"]
    modes = [helper.get_attribute_value(attribute) for attribute in resize.attribute if attribute.name.startswith("coordinate")]
    after = run(converted)
    print(f"{operation} of opset {opset}: {before}\nconverted to 13: expected the same, seen {after}; coordinates written: {modes}")
    resize.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
    assert run(converted) == before and after != before and not modes, "this has changed"
PY
