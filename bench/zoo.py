"""Networks as exporters write them: outputs against ONNX Runtime, repair, and whole channels.

    python export_zoo.py FOLDER          # any script that writes NAME.KIND.onnx
    cargo build --release -p resprout-cli -p resprout-runtime --bins --examples
    python bench/zoo.py FOLDER [--filter TEXT] [--bin DIR] [--ways dense,pruned,channel]

dense: the largest difference by the largest output, of a batch of two noise images, as a network and as a session.
pruned: the same for 50 % of the weights, repaired with least squares on noise images.
channel: the same for half of the channels, pruned and cut out, or what keeps channels whole.
A difference above 1e-4 and every refusal is listed. The last lines are counts by kind.
"""
import argparse
import collections
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime

ROOT = pathlib.Path(__file__).parent.parent
TOLERANCE = 1e-4
MODES = ["network", "session"]


def images(path):
    """The input's name, and noise of the shape that the file has."""
    model = onnx.load(path, load_external_data=False)
    constants = {i.name for i in model.graph.initializer}
    value = next(i for i in model.graph.input if i.name not in constants)
    dims = [max(d.dim_value, 0) for d in value.type.tensor_type.shape.dim]
    shape = [dims[0] or 2, dims[1] or 3, *[d or 224 for d in dims[2:]]]
    return value.name, np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def difference(path, bins, modes, given=None):
    """The largest difference of all outputs by the largest number of each (a thousandth at least), or why there is none.

    `given` are other images than noise."""
    name, x = images(path)
    x = x if given is None else given
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    expected = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"]).run(None, {name: x})
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "m.onnx").symlink_to(path.resolve())
        np.save(folder / "m.npy", x)
        done = subprocess.run([bins / "examples/forward", folder, ",".join(modes)], capture_output=True, text=True)
        worst = 0.0
        for line in done.stdout.splitlines():
            _, mode, result, *text = line.split("\t")
            if result != "ok":
                return " ".join([mode, result, *text])
            for index, right in enumerate(expected):
                found = np.load(folder / f"m.{mode}.{index}.npy")
                if found.shape != right.shape:
                    return f"{mode}: output {index} has the shape {found.shape}, not {right.shape}"
                worst = max(worst, float(np.abs(found - right).max() / max(np.abs(right).max(), 1e-3)))
        return worst if done.stdout else done.stderr.strip()


def pruned(path, bins, folder, given, *options):
    """The difference of a pruned network, or why it was not pruned."""
    out = folder / "out.onnx"
    out.unlink(missing_ok=True)
    command = [bins / "resprout", "prune", path, "-o", out, "--sparsity", "0.5", "--no-evaluation", "--quiet", *options]
    if "--data-free" in options:
        command += ["--calibration-images", "8"]
        # Noise has the size of the crop, where the file leaves it open.
        if given is not None:
            height, width = given.shape[2:] if given.shape[1] in (1, 3) else given.shape[1:3]
            command += ["--preset", "raw", "--crop", f"{height}x{width}"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    return difference(out, bins, ["plan"], given)


WAYS = {
    "dense": lambda path, bins, folder, given=None: difference(path, bins, MODES, given),
    "pruned": lambda path, bins, folder, given=None: pruned(path, bins, folder, given, "--repair", "least-squares", "--data-free"),
    "channel": lambda path, bins, folder, given=None: pruned(path, bins, folder, given, "--pattern", "channel", "--shrink"),
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--filter", default="")
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target/release")
    parser.add_argument("--ways", default=",".join(WAYS))
    args = parser.parse_args()
    good, all_of, notes = collections.Counter(), collections.Counter(), []
    ways = args.ways.split(",")
    print(f"| network | {' | '.join(ways)} |\n| --- |{' --- |' * len(ways)}")
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(args.folder.glob("*.onnx")):
            if args.filter not in path.name:
                continue
            cells, kind = [], path.stem.rsplit(".", 1)[-1]
            for way in ways:
                result = WAYS[way](path, args.bin.resolve(), pathlib.Path(folder))
                all_of[way, kind] += 1
                fits = isinstance(result, float) and result <= TOLERANCE
                good[way, kind] += fits
                cells.append(f"{result:.0e}" if isinstance(result, float) else "see below")
                if not fits:
                    notes.append(f"{path.stem} {way}: {result}")
            print(f"| {path.stem} | {' | '.join(cells)} |", flush=True)
    print("\n".join(["", *notes]))
    print(json.dumps({f"{way} {kind}": f"{good[way, kind]} of {count}" for (way, kind), count in all_of.items()}, indent=1))
    return len(notes) > 0


if __name__ == "__main__":
    sys.exit(main())
