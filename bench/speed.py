"""Sessions against ONNX Runtime: alternating in one run, same images, same threads, medians.

    pip install -r testdata/gen/requirements.txt
    cargo build --release -p resprout --example timed_session
    python bench/speed.py models FOLDER           (makes ResNet-50 and ResNet-18-CIFAR with random masks)
    python bench/speed.py run MODEL.onnx BATCH C,H,W [--dense MODEL.onnx] [--rounds 21] [--tune 30] [--threads 2]

Prints the median milliseconds of both, the median of the per-round ratios (ONNX Runtime's time by ours: above 1 we are
faster) and the largest difference of the outputs, relative to the largest output. `--dense` names the file that ONNX
Runtime runs, if it is another one: it does not look at zeros, so the dense one is the fair rival.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLE = ROOT / "target/release/examples/timed_session"
# Seconds before each turn of ours: ONNX Runtime's threads wait by spinning, which would cost us cores.
PAUSE = 0.05
# Batches of a turn; the first, which finds caches and threads cold, does not count.
TURN = 4


def masks(layers, sparsity, kind):
    """Density of each weight: the same for all, or as ERK."""
    if kind == "uniform":
        return {name: 1 - sparsity for name in layers}
    raw = {name: sum(shape) / np.prod(shape) for name, shape in layers.items()}
    keep = (1 - sparsity) * sum(np.prod(shape) for shape in layers.values())
    full = set()
    while True:
        open_ = [name for name in layers if name not in full]
        factor = (keep - sum(np.prod(layers[n]) for n in full)) / sum(raw[n] * np.prod(layers[n]) for n in open_)
        over = [name for name in open_ if factor * raw[name] > 1]
        if not over:
            return {name: 1.0 if name in full else factor * raw[name] for name in layers}
        full |= set(over)


def models(folder):
    import torch
    import torchvision

    folder.mkdir(parents=True, exist_ok=True)
    for name, size in [("resnet50", 224), ("resnet18cifar", 32)]:
        for kind in ["dense", "uniform90", "uniform95", "erk90", "erk95"]:
            torch.manual_seed(0)
            model = torchvision.models.resnet50() if name == "resnet50" else torchvision.models.resnet18(num_classes=10)
            if name == "resnet18cifar":
                model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
                model.maxpool = torch.nn.Identity()
            weights = {n: p for n, p in model.named_parameters() if p.dim() > 1}
            if kind != "dense":
                density = masks({n: tuple(p.shape) for n, p in weights.items()}, int(kind[-2:]) / 100, kind[:-2])
                with torch.no_grad():
                    for n, p in weights.items():
                        kept = round(density[n] * p.numel())
                        mask = torch.zeros(p.numel())
                        mask[torch.randperm(p.numel())[:kept]] = 1
                        # The outputs keep their size, so that differences mean something.
                        p.mul_(mask.view_as(p) / density[n] ** 0.5)
            path = folder / f"{name}-{kind}.onnx"
            torch.onnx.export(
                model.eval(), torch.zeros(1, 3, size, size), path, dynamo=False, input_names=["x"], output_names=["y"],
                dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
            )
            print(path)


def run(options):
    import onnxruntime

    dims = [int(dim) for dim in options.shape.split(",")]
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    rival = options.dense or options.model
    images = np.random.default_rng(0).uniform(-2, 2, [options.batch, *dims]).astype(np.float32)

    def session(path):
        made = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        return made, {made.get_inputs()[0].name: images}

    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder) / "in", pathlib.Path(folder) / "out"
        images.tofile(source)
        command = [EXAMPLE, options.model, options.batch, *dims, options.threads, options.tune, source, target]
        ours = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def batch_of_ours():
            ours.stdin.write("go\n")
            ours.stdin.flush()
            return float(ours.stdout.readline())

        def time_ours():
            time.sleep(PAUSE)
            return statistics.median([batch_of_ours() for _ in range(TURN)][1:])

        time_ours()
        same, feed = session(options.model)
        expected = same.run(None, feed)[0]
        result = np.fromfile(target, np.float32).reshape(expected.shape)
        difference = float(np.abs(result - expected).max() / np.abs(expected).max())
    theirs, feed = session(rival)

    def batch_of_theirs():
        start = time.perf_counter()
        theirs.run(None, feed)
        return time.perf_counter() - start

    def time_theirs():
        return statistics.median([batch_of_theirs() for _ in range(TURN)][1:])

    time_ours(), time_theirs()
    pairs = [(time_ours(), time_theirs()) for _ in range(options.rounds)]
    ours.stdin.close()
    print(json.dumps({
        "model": pathlib.Path(options.model).name,
        "batch": options.batch,
        "threads": options.threads,
        "onnxruntime": onnxruntime.__version__,
        "ours_ms": round(statistics.median(a for a, _ in pairs) * 1e3, 3),
        "onnxruntime_ms": round(statistics.median(b for _, b in pairs) * 1e3, 3),
        "ratio": round(statistics.median(b / a for a, b in pairs), 3),
        "difference": difference,
    }), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("models")
    made.add_argument("folder", type=pathlib.Path)
    timed = commands.add_parser("run")
    timed.add_argument("model")
    timed.add_argument("batch", type=int)
    timed.add_argument("shape")
    timed.add_argument("--dense")
    timed.add_argument("--rounds", type=int, default=21)
    timed.add_argument("--tune", type=float, default=30)
    timed.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    models(options.folder) if options.command == "models" else run(options)


if __name__ == "__main__":
    main()
