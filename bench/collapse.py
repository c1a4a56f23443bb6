"""How far each method of pruning at initialisation can compress before a layer is empty: no training.

    pip install matplotlib
    cargo build --release -p resprout-cli
    python bench/collapse.py run CIFAR10_FOLDER record/DATE-collapse.jsonl
    python bench/collapse.py table record/DATE-collapse.jsonl docs/collapse.svg

Compression is the ratio of prunable weights to kept ones. For each network and method the highest of
10^0.25, 10^0.5, ... is sought by bisection at which every layer keeps a weight, and the highest at which
effective weights are left: some path still leads from the image to the classes. Finished searches are not repeated.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent
NETWORKS = ["vgg-16-bn-cifar", "resnet-18-cifar", "resnet-50-cifar"]
METHODS = [
    "random", "magnitude", "snip", "grasp", "force", "synflow", "resynflow", "resynflow:rounds=100:schedule=exponential",
]
STEP, HIGHEST = 0.25, 24  # up to 10^6


def score(arch, method, data, exponent):
    with tempfile.TemporaryDirectory() as folder:
        command = [ROOT / "target/release/resprout", "score", "--arch", arch, "--method", method, "--init", "kaiming-in"]
        command += ["--sparsity", str(1 - 10**-exponent), "--data", data, "--batch", "64", "--quiet", "--json", "-"]
        done = subprocess.run([*map(str, command), "-o", folder + "/x.onnx"], capture_output=True, text=True)
    if done.returncode != 0:
        # Fewer weights than layers: nothing can be whole.
        assert "weights for" in done.stderr, done.stderr
        return {"whole": False, "alive": False}
    report = json.loads(done.stdout)
    return {
        "whole": all(layer["kept"] > 0 for layer in report["layers"]),
        "alive": any(layer["effective"] > 0 for layer in report["layers"]),
    }


def highest(ask):
    """The last step at which `ask` holds, if it holds up to there and nowhere behind."""
    low, high = 0, HIGHEST
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if ask(middle) else (low, middle - 1)
    return low


def search(arch, method, data):
    known = {}

    def ask(step, what):
        if step not in known:
            known[step] = score(arch, method, data, STEP * step)
        return known[step][what]

    row = {"arch": arch, "method": method}
    for what in ("whole", "alive"):
        row[what] = STEP * highest(lambda step: ask(step, what))
    return row


def run(data, record):
    done = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    for arch in NETWORKS:
        for method in METHODS:
            if not any((row["arch"], row["method"]) == (arch, method) for row in done):
                row = search(arch, method, data)
                with record.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)


def table(record, picture):
    import matplotlib
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "collapse"
    import matplotlib.pyplot as plt

    rows = {(row["arch"], row["method"]): row for row in map(json.loads, record.read_text().splitlines())}
    print("| method | " + " | ".join(NETWORKS) + " |\n| --- |" + " --- |" * len(NETWORKS))
    for method in METHODS:
        cells = [rows.get((arch, method)) for arch in NETWORKS]
        print(f"| {method} | " + " | ".join(f"{r['whole']:g} / {r['alive']:g}" if r else "" for r in cells) + " |")
    figure, axes = plt.subplots(1, len(NETWORKS), figsize=(11, 3.6), sharex=True, sharey=True)
    for axis, arch in zip(axes, NETWORKS):
        values = [rows.get((arch, method), {"whole": 0, "alive": 0}) for method in METHODS]
        axis.barh(METHODS, [value["alive"] for value in values], color="#cfd8d0", label="a path is left")
        axis.barh(METHODS, [value["whole"] for value in values], color="#2f7d4f", label="every layer keeps a weight")
        axis.set_title(arch)
        axis.set_xlabel("log10 of the highest compression")
        axis.invert_yaxis()
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(picture, metadata={"Date": None})


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(sys.argv[2], pathlib.Path(sys.argv[3]))
    else:
        table(pathlib.Path(sys.argv[2]), sys.argv[3])
