#!/usr/bin/env bash
# ONNX Runtime 1.32.0 with onnx 1.23.2, seen 2026-12-01.
# Expected: quantize_static keeps what the network computes, up to rounding, in both formats. Its documentation calls QOperator and QDQ two
# representations of the same quantisation.
# Seen: with QuantFormat.QOperator, and the default asymmetric activations, the Relu is removed where its input has other readers too, such
# as the shortcut of a ResNet with pre-activation. The sum before it, which is to be signed, is quantised to the range of the Relu, and
# loses its negative half. The result is off by nearly half of its largest value; with QuantFormat.QDQ by a few hundredths.
# reduce_range keeps 8-bit products from saturating on CPUs without VNNI, which would be another matter.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q onnx==1.23.2 onnxruntime==1.32.0
cd "$folder"
"$folder/venv/bin/python" - 2>/dev/null <<'PY'
import numpy, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
random = numpy.random.default_rng(0)
normal = lambda *shape: random.normal(size=shape).astype(numpy.float32)
pads = [1, 1, 1, 1]
nodes = [helper.make_node("Conv", ["x", "stem"], ["a"], pads=pads), helper.make_node("Add", ["a", "x"], ["sum"]),
         helper.make_node("Relu", ["sum"], ["b"]), helper.make_node("Conv", ["b", "block"], ["c"], pads=pads),
         helper.make_node("Add", ["sum", "c"], ["y"])]
weights = [numpy_helper.from_array(normal(8, 8, 3, 3) * scale, name) for name, scale in (("stem", 1), ("block", numpy.float32(0.1)))]
value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8, 8, 8])
graph = helper.make_graph(nodes, "block", [value("x")], [value("y")], weights)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
onnx.checker.check_model(model)
onnx.save(model, "float.onnx")
x = {"x": normal(1, 8, 8, 8)}
class Images(CalibrationDataReader):
    def __init__(self):
        self.images = iter([x])
    def get_next(self):
        return next(self.images, None)
def run(path):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, x)[0]
exact = run("float.onnx")
off = {}
for form in (QuantFormat.QDQ, QuantFormat.QOperator):
    quantize_static("float.onnx", "int8.onnx", Images(), quant_format=form, per_channel=True, reduce_range=True)
    operations = [node.op_type for node in onnx.load("int8.onnx").graph.node]
    off[form.name] = numpy.abs(run("int8.onnx") - exact).max() / numpy.abs(exact).max()
    print(f"{form.name}: expected a few hundredths, seen {off[form.name]:.3f} of the largest value; Relu kept: {'Relu' in operations}")
assert off["QDQ"] < 0.05 and off["QOperator"] > 0.2, "this has changed"
PY
