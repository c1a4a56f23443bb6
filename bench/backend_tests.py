"""The node tests of the package onnx, through resprout's forward.

    cargo build --release -p resprout-runtime --example forward
    python bench/backend_tests.py [--forward PATH] [--all] [--only TEXT]

Each test is a graph of one operation, or of the function that defines it, with inputs and outputs. It counts if its operations are
in docs/reference/operations.md and its types are float32, bool and integers. The first float input is fed; all others become
constants, as the forward takes one input. Tests without float inputs are computed from constants alone.
Prints the counts, and every test that is refused or wrong. `--all` runs the tests of other operations too.
"""
import argparse
import collections
import pathlib
import re
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

warnings.filterwarnings("ignore")
from onnx.backend.test.loader import load_model_tests  # noqa: E402

ROOT = pathlib.Path(__file__).parent.parent
TYPES = {TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8, TensorProto.INT8}
# Tests of listed operations that are left out, by a pattern of their names.
EXCEPTIONS = {
    "dropout.*mask|training_dropout|dropout_training": "the mask of a Dropout, or a Dropout that drops",
    "batchnorm.*training_mode": "statistics of the batch become outputs",
    "downsample_scales_(linear|cubic)_align_corners": "ONNX Runtime, which we follow, places corners by whole lengths",
    "reduce_(max|min)_empty_set_bool": "the largest of no truth values",
    "test_not_[234]d": "opset 1",
}


def listed():
    """The operations of the table in the docs."""
    text = (ROOT / "docs/reference/operations.md").read_text()
    rows = re.findall(r"^\| [a-z0-9 ]+ \| (.*) \|$", text, re.M)
    return {re.sub(r" \(.*?\)", "", name).strip() for row in rows for name in re.sub(r"\(.*?\)", "", row).split(",")} - {"operations"}


def types_of(graph):
    infos = [*graph.input, *graph.output]
    kinds = {i.type.tensor_type.elem_type if i.type.HasField("tensor_type") else None for i in infos}
    return kinds | {t.data_type for n in graph.node for a in n.attribute for t in [a.t] if a.type == onnx.AttributeProto.TENSOR}


def constant_inputs(model, inputs):
    """The same model with one input; the others are constants. Returns the bytes and that input."""
    graph = model.graph
    arrays = dict(zip([i.name for i in graph.input], inputs))
    fed = next((n for n, a in arrays.items() if a.dtype == np.float32 and a.ndim > 0), None)
    for info in list(graph.input):
        if info.name != fed:
            graph.input.remove(info)
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(arrays[info.name]), info.name))
    if fed is None:
        graph.input.append(helper.make_tensor_value_info("unread", TensorProto.FLOAT, [1]))
    return model.SerializeToString(), arrays.get(fed, np.zeros(1, np.float32))


def cases(only, everything):
    known, skipped = listed(), collections.Counter()
    for test in load_model_tests(kind="node"):
        if only and not re.search(only, test.name):
            continue
        model = onnx.ModelProto()
        model.CopyFrom(test.model)
        operations = {n.op_type for n in model.graph.node if n.op_type != "Constant"}
        if any(a.type == onnx.AttributeProto.GRAPH for n in model.graph.node for a in n.attribute):
            skipped["a graph within a node"] += 1
        elif not types_of(model.graph) <= TYPES:
            skipped["other types"] += 1
        elif not everything and not operations <= known:
            skipped["other operations"] += 1
        else:
            inputs, outputs = test.data_sets[0]
            yield test, *constant_inputs(model, inputs), [np.asarray(o) for o in outputs]
    print(f"left out: {dict(skipped)}")


def check(folder, name, outputs, test):
    for index, right in enumerate(outputs):
        found = np.load(folder / f"{name}.plan.{index}.npy")
        if found.shape != right.shape:
            return f"output {index} has the shape {found.shape}, expected {right.shape}"
        if not np.allclose(found, right.astype(np.float32), test.rtol, max(test.atol, 1e-6), equal_nan=True):
            return f"output {index} is off by {np.nanmax(np.abs(found - right.astype(np.float32)), initial=0):.2e}"
    return ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--forward", default=ROOT / "target/release/examples/forward")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--only")
    args = parser.parse_args()
    passed, failed, excepted = 0, [], collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        folder, tests = pathlib.Path(folder), {}
        for test, model, x, outputs in cases(args.only, args.all):
            tests[test.name] = (test, outputs)
            (folder / f"{test.name}.onnx").write_bytes(model)
            np.save(folder / f"{test.name}.npy", x)
        lines = subprocess.run([args.forward, folder, "plan"], capture_output=True, text=True)
        for line in lines.stdout.splitlines():
            name, way, result, *text = line.split("\t")
            test, outputs = tests.pop(name)
            error = check(folder, name, outputs, test) if result == "ok" else f"{result}: {' '.join(text)}"
            reason = next((why for pattern, why in EXCEPTIONS.items() if re.search(pattern, name)), None)
            if not error:
                passed += 1
            elif reason:
                excepted[reason] += 1
            else:
                failed.append((name, error))
        failed += [(name, "not run") for name in tests]
    print(f"{passed} of {passed + len(failed) + sum(excepted.values())} pass")
    for reason, count in excepted.items():
        print(f"  {count:4} left out: {reason}")
    for name, error in failed:
        print(f"  FAILED {name}: {error[:230]}")
    return bool(lines.returncode or failed)


if __name__ == "__main__":
    sys.exit(main())
