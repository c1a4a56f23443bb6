"""Whole channels: masked against shrunk networks under ONNX Runtime, latency, and Torch-Pruning beside ours.

    pip install -r testdata/gen/requirements.txt torch-pruning onnxsim==0.8.1
    cargo build --release -p resprout-cli
    python bench/structure.py same FILE_OR_FOLDER_OR_ARCH ...   # outputs, MACs and bytes at half the weights
    python bench/structure.py latency MODEL [ROUNDS]            # half the MACs, masked against shrunk, alternating
    python bench/structure.py baseline                          # ResNet-50 and DenseNet-121 at Torch-Pruning's MACs
    python bench/structure.py onnxsim FILE_OR_FOLDER_OR_ARCH ...  # half of the channels, and ours at onnxsim's parameters
"""
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime

from graphs import input_shape, randomise

ROOT = pathlib.Path(__file__).parent.parent
THREADS = 2


def resprout(*arguments):
    command = [ROOT / "target/release/resprout", *map(str, arguments), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return done.stdout


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def prune(model, output, *arguments):
    return json.loads(resprout("prune", model, "--pattern", "channel", *arguments, "-o", output, "--json", "-"))


def difference(masked, small, feed):
    """The largest difference of the outputs by the largest output."""
    a, b = (session(file).run(None, feed)[0] for file in (masked, small))
    return np.abs(a - b).max() / max(np.abs(a).max(), 1e-30)


def files(names, work):
    for name in names:
        path = pathlib.Path(name)
        if path.is_dir():
            yield from sorted(path.glob("*.onnx"))
        elif path.exists():
            yield path
        else:
            made = work / f"{name}.onnx"
            resprout("convert", "--arch", name, "-o", made)
            yield made


def same(names):
    print("| network | output, relative difference | parameters | MACs | bytes |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for path in files(names, work):
            try:
                print(f"| {path.stem} | " + same_one(path, work), flush=True)
            except RuntimeError as error:
                print(f"| {path.stem} | refused: {error} | | | |", flush=True)


def same_one(path, work):
    model = onnx.load(path)
    name, shape = input_shape(model)
    constants = {tensor.name for tensor in model.graph.initializer}
    fills = [node for node in model.graph.node if node.op_type == "ConstantOfShape"]
    if fills and all(node.input[0] in constants for node in fills):
        randomise(model)
        path = work / "random.onnx"
        onnx.save(model, path)
    small, masked = work / "small.onnx", work / "masked.onnx"
    report = prune(path, small, "--sparsity", "0.5", "--shrink")
    prune(path, masked, "--sparsity", "0.5")
    onnx.checker.check_model(str(small), full_check=True)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    off = difference(masked, small, {name: x})
    before, after = report["shrunk"]["parameters"]
    macs = report["shrunk"]["macs"]
    ratio = f"{macs[1] / macs[0]:.3f}" if macs else "image size unknown"
    return f"{off:.1e} | {after / before:.3f} | {ratio} | {small.stat().st_size / masked.stat().st_size:.3f} |"


def latency(path, rounds):
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        small, masked = work / "small.onnx", work / "masked.onnx"
        report = prune(path, small, "--macs", "0.5", "--shrink")
        prune(path, masked, "--macs", "0.5")
        print("MACs", report["shrunk"]["macs"])
        name, shape = input_shape(onnx.load(path))
        for batch in (1, 32):
            x = np.random.default_rng(0).normal(size=[batch, *shape[1:]]).astype(np.float32)
            sessions = [session(masked), session(small)]
            times = [[], []]
            for _ in range(rounds):
                for one, list_ in zip(sessions, times):
                    start = time.perf_counter()
                    one.run(None, {name: x})
                    list_.append(time.perf_counter() - start)
            a, b = (1e3 * statistics.median(list_) for list_ in times)
            print(f"batch {batch}: masked {a:.2f} ms, shrunk {b:.2f} ms, ratio {a / b:.2f}")


def baseline():
    import torch
    import torch_pruning
    import torchvision

    for arch, made in (("resnet-50", torchvision.models.resnet50), ("densenet-121", torchvision.models.densenet121)):
        with tempfile.TemporaryDirectory() as folder:
            work = pathlib.Path(folder)
            torch.manual_seed(0)
            net, x = made(weights=None).eval(), torch.randn(1, 3, 224, 224)
            torch.save(net.state_dict(), work / "net.pth")
            resprout("convert", work / "net.pth", "--arch", arch, "-o", work / "net.onnx")
            macs, parameters = torch_pruning.utils.count_ops_and_params(net, x)
            start = time.perf_counter()
            importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
            pruner = torch_pruning.pruner.BasePruner(net, x, importance, pruning_ratio=0.5, ignored_layers=[
                module for module in net.modules() if isinstance(module, torch.nn.Linear)])
            pruner.step()
            seconds = time.perf_counter() - start
            with torch.no_grad():
                assert net(x).shape == (1, 1000)
            left, kept = torch_pruning.utils.count_ops_and_params(net, x)
            print(f"{arch}: Torch-Pruning, half of the channels: MACs {left / macs:.3f}, parameters {kept / parameters:.3f}, {seconds:.1f} s")
            arguments = ["--macs", left / macs, "--allocation", "uniform"]
            start = time.perf_counter()
            report = prune(work / "net.onnx", work / "small.onnx", *arguments, "--shrink")
            seconds = time.perf_counter() - start
            prune(work / "net.onnx", work / "masked.onnx", *arguments)
            ours = [report["shrunk"][key][1] / report["shrunk"][key][0] for key in ("macs", "parameters")]
            off = difference(work / "masked.onnx", work / "small.onnx", {"input": x.numpy()})
            print(f"{arch}: ours, uniform to the same MACs: MACs {ours[0]:.3f}, parameters {ours[1]:.3f}, {seconds:.1f} s; "
                  f"shrunk against masked under ONNX Runtime {off:.1e}")


def onnxsim(names):
    print("| network | onnxsim: parameters | MACs | runs | resprout: parameters | MACs | shrunk against masked |")
    print("| --- |" + " --- |" * 6)
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        for path in files(names, work):
            print(f"| {path.stem} | " + onnxsim_one(path, work), flush=True)


def onnxsim_one(path, work):
    from onnxsim import apply_structured_pruning, simplify

    theirs, small, masked, fused = (work / f"{name}.onnx" for name in ("theirs", "small", "masked", "fused"))
    # Its pruning wants BatchNormalizations fused.
    onnx.save(simplify(onnx.load(path))[0], fused)
    onnx.save(apply_structured_pruning(onnx.load(fused), sparsity=0.5), theirs)
    name, shape = input_shape(onnx.load(fused))
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    try:
        session(theirs).run(None, {name: x})
        runs = "yes"
    except Exception as error:  # Whatever it says: the network is broken.
        runs = f"no: {str(error).splitlines()[0][:80]}"
    (before, macs), (after, less) = size(fused), size(theirs)
    if after == before:
        return f"1.000 | 1.000 | {runs}, unchanged | | | |"
    left = f"{less / macs:.3f}" if less else "unknown"
    theirs_left = f"{after / before:.3f} | {left} | {runs} |"
    ours = ["--sparsity", str(1 - after / before), "--allocation", "uniform"]
    try:
        report = prune(fused, small, *ours, "--shrink")["shrunk"]
    except RuntimeError as error:
        return f"{theirs_left} {error} | | |"
    prune(fused, masked, *ours)
    off = difference(masked, small, {name: x})
    kept = [report[key][1] / report[key][0] for key in ("parameters", "macs")]
    return f"{theirs_left} {kept[0]:.3f} | {kept[1]:.3f} | {off:.1e} |"


def size(path):
    """Parameters and multiply-accumulates."""
    report = json.loads(resprout("inspect", path, "--json", "-"))["sparsity"]
    return report["parameters"], report["macs_dense"]


if __name__ == "__main__":
    if sys.argv[1] == "same":
        same(sys.argv[2:])
    elif sys.argv[1] == "latency":
        latency(sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 200)
    elif sys.argv[1] == "onnxsim":
        onnxsim(sys.argv[2:])
    else:
        baseline()
