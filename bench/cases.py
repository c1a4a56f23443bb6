"""What becomes of ONNX files: read, pruned, repaired, made smaller, and computed as ONNX Runtime computes them.

    cargo build --release -p resprout-cli
    python bench/cases.py FOLDER IMAGES [NAME ...]

A row for each file: what `inspect` and `prune` say, then how far outputs are from ONNX Runtime's before and after pruning by half.
That is the largest difference by the largest output, on noise. Then what `--repair auto` and `--pattern channel --shrink` say. Files with other than
three-channel images are calibrated on noise. `BINARY` names another build.

    python bench/cases.py --reach FOLDER [NAME ...]

Of networks as exporters write them: whether each is inspected and pruned by half without repair, and loads in ONNX Runtime. Each must have
no weight that is neither pruned nor listed. The share of its weights that can be pruned is printed.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import onnx
import onnxruntime
from onnx import numpy_helper

BINARY = os.environ.get("BINARY", str(pathlib.Path(__file__).parent.parent / "target/release/resprout"))
TOLERANCE = 1e-5
onnxruntime.set_default_logger_severity(4)


def image(path):
    """The shape of one image: free sides are 32."""
    graph = onnx.load(path, load_external_data=False).graph
    constants = {t.name for t in graph.initializer}
    value = next((i for i in graph.input if i.name not in constants), None)
    dims = [d.dim_value for d in value.type.tensor_type.shape.dim] if value else []
    dims = [d or (3 if axis == 0 else 32) for axis, d in enumerate(dims[1:])] or [3, 32, 32]
    return [dims[2], *dims[:2]] if len(dims) == 3 and dims[2] in (1, 3, 4) and dims[0] > 4 else dims


def run(*arguments):
    command = [BINARY, *map(str, arguments), "--threads", "2", "--quiet"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return "TIMEOUT"
    if done.returncode == 0:
        return ""
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    if done.returncode not in (1, 2) or any("panicked" in line for line in lines):
        return f"CRASH {done.returncode}"
    return " ".join(lines)


def loads(path):
    try:
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception:
        return False
    return True


def difference(path, folder):
    """Outputs here and in ONNX Runtime of the same noise, or what one of them says."""
    shape = ",".join(map(str, image(path)))
    table = folder / "bench.json"
    for batch in ("1", "4"):
        said = run("bench", path, "--against", "onnxruntime", "--python", sys.executable, "--rounds", "1", "--batch", batch,
                   "--input-shape", shape, "--json", table)
        if not said:
            return json.loads(table.read_text())["rows"][0]["baseline"]["difference"]
    return said


def unlisted(path, folder):
    """Weights of two axes that `inspect` neither prunes nor lists."""
    table = folder / "inspect.json"
    if run("inspect", path, "--json", table):
        return None
    told = json.loads(table.read_text())
    known = {row["param"] for row in told["layers"]} | {row["param"] for row in told["left_dense"]}
    model = onnx.load(path)
    weights = {t.name for t in model.graph.initializer if t.data_type in (1, 10, 11, 16) and sum(d > 1 for d in t.dims) > 1}
    read = {name for node in model.graph.node for name in node.input}
    return sorted((weights & read) - known)


def zeros(path):
    graph = onnx.load(path).graph
    constants = [a.t for node in graph.node if node.op_type == "Constant" for a in node.attribute if a.name == "value"]
    tensors = [numpy_helper.to_array(t) for t in [*graph.initializer, *constants] if len(t.dims) > 1]
    count = sum(t.size for t in tensors)
    return sum(int((t == 0).sum()) for t in tensors) / max(count, 1)


def word(said):
    if isinstance(said, float):
        return f"{said:.1e}" if said <= TOLERANCE else f"WRONG {said:.1e}"
    return "ok" if said == "" else said


def row(path, images, folder):
    pruned, repaired, small = (folder / f"{name}.onnx" for name in ("pruned", "repaired", "small"))
    for file in (pruned, repaired, small):
        file.unlink(missing_ok=True)
    cells = [path.stem, word(run("inspect", path))]
    said = run("prune", path, "--sparsity", "0.5", "-o", pruned, "--no-evaluation")
    fine = said == "" and (loads(pruned) or not loads(path))
    cells.append(f"{100 * zeros(pruned):.0f} % zeros" if fine else said or "REFUSED BY ONNX RUNTIME")
    missing = unlisted(path, folder)
    cells.append("all" if missing == [] else "-" if missing is None else f"NOT LISTED: {missing}")
    cells.append(word(difference(path, folder)) if loads(path) else "not in ONNX Runtime")
    cells.append(word(difference(pruned, folder)) if fine and loads(pruned) else "-")
    calibration = ["--calibration", images] if len(image(path)) == 3 and image(path)[0] == 3 else ["--data-free"]
    said = run("prune", path, "--sparsity", "0.5", "--repair", "auto", *calibration, "--calibration-images", "32", "-o", repaired)
    cells.append(word(said))
    said = run("prune", path, "--pattern", "channel", "--sparsity", "0.3", "--shrink", "-o", small, "--no-evaluation")
    cells.append(word(said) if said or loads(small) or not loads(path) else "REFUSED BY ONNX RUNTIME")
    return cells


def reach(path, folder):
    """What keeps a file from being fine, and the share of its weights that can be pruned."""
    pruned, table = folder / "pruned.onnx", folder / "pruned.json"
    pruned.unlink(missing_ok=True)
    said = run("inspect", path)
    said = said or run("prune", path, "--sparsity", "0.5", "-o", pruned, "--no-evaluation", "--json", table)
    if said or not loads(pruned):
        return said or "REFUSED BY ONNX RUNTIME", 0.0
    told = json.loads(table.read_text())
    prunable, dense = (sum(row["weights"] for row in told[key]) for key in ("layers", "left_dense"))
    missing = unlisted(path, folder)
    return f"NOT LISTED: {missing}" if missing else "", prunable / max(prunable + dense, 1)


def main_reach(source, names):
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(source.glob("*.onnx")):
            if not names or path.stem in names:
                said, share = reach(path, pathlib.Path(folder))
                rows.append((said, share))
                print(f"{path.stem:30} {said or 'ok':40} {100 * share:6.2f} % can be pruned", flush=True)
    fine = [share for said, share in rows if not said]
    print(f"{len(fine)} of {len(rows)} files are fine; least share {100 * min(fine, default=0):.2f} %")


def main():
    if sys.argv[1] == "--reach":
        return main_reach(pathlib.Path(sys.argv[2]), sys.argv[3:])
    source, images, names = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    print("| file | inspect | prune | weights listed | against ONNX Runtime | pruned | repair auto | channels |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(source.glob("*.onnx")):
            if not names or path.stem in names:
                print("| " + " | ".join(cell.replace("|", "/")[:160] for cell in row(path, images, pathlib.Path(folder))) + " |", flush=True)


if __name__ == "__main__":
    main()
