"""Trains the grids of methods that docs/results.md shows: every method at every sparsity, equal total
epochs, several seeds. A row of JSON per finished run is appended to the record; runs that are in it
already are not repeated.

    python bench/methods.py mnist MNIST_FOLDER record/DATE-methods.jsonl
    python bench/methods.py cifar CIFAR10_FOLDER record/DATE-methods.jsonl
    python bench/methods.py mnist-at-init MNIST_FOLDER record/DATE-at-init.jsonl --jobs 2
    python bench/methods.py cifar-at-init CIFAR10_FOLDER record/DATE-at-init.jsonl --jobs 2 --images 10000
    python bench/methods.py table record/DATE-methods.jsonl
"""
import argparse
import concurrent.futures
import json
import pathlib
import statistics
import subprocess
import tempfile
import threading

RAMP = "every=0.1"
# Bytes of a CIFAR-10 image with its label.
RECORD = 3073
# Each without and with the repair of the masked weights.
AT_INIT = [
    method + repair
    for method in ["random", "magnitude", "snip", "grasp", "synflow", "force", "resynflow"]
    for repair in ["", " + repair"]
]
GRIDS = {
    "mnist": [
        {
            "arch": "lenet-300-100", "epochs": 10, "rate": 0.1, "seeds": 3, "sparsities": [0.9, 0.95, 0.98],
            "extra": [("progressive", 0.99)],
            "methods": ["progressive", "gmp", "one-shot:at=0.5", "imp:levels=4", "random"],
        },
        {
            "arch": "lenet-5", "epochs": 3, "rate": 0.05, "seeds": 3, "sparsities": [0.9, 0.95, 0.98],
            "extra": [("progressive", 0.99)],
            "methods": ["progressive", "gmp", "one-shot:at=0.5", "imp:levels=2", "random"],
        },
    ],
    "cifar": [
        {
            "arch": "resnet-20", "epochs": 4, "rate": 0.1, "seeds": 1, "sparsities": [0.8, 0.9], "extra": [],
            "methods": ["progressive", "one-shot:at=0.5", "gmp"], "more": ["--crop", "4", "--flip", "--weight-decay", "1e-4"],
        },
    ],
    "mnist-at-init": [
        {
            "arch": "lenet-5", "epochs": 2, "rate": 0.05, "seeds": 3, "sparsities": [0.9, 0.95, 0.98],
            "extra": [("dense + repair", 0.0)], "methods": AT_INIT, "more": ["--init", "kaiming-in"],
        },
    ],
    "cifar-at-init": [
        {
            "arch": "resnet-20", "epochs": 3, "rate": 0.1, "seeds": 3, "sparsities": [0.9, 0.95, 0.98],
            "extra": [("dense + repair", 0.0)], "methods": AT_INIT,
            "more": ["--init", "kaiming-in", "--crop", "4", "--flip", "--weight-decay", "5e-4"],
        },
    ],
}


def runs(grid):
    for seed in range(grid["seeds"]):
        yield "dense", 0.0, seed
        for method in grid["methods"]:
            for sparsity in grid["sparsities"]:
                yield method, sparsity, seed
        for method, sparsity in grid["extra"]:
            yield method, sparsity, seed


def arguments(grid, method):
    name, _, repair = method.partition(" + ")
    if name in ("progressive", "gmp"):
        return ["--method", f"{name}:{RAMP}"]
    when = ["--prune-at-init", name] if grid["methods"] is AT_INIT and name != "dense" else ["--method", name]
    return when + (["--repair-init", repair] if repair else [])


def train(options, grid, method, sparsity, seed):
    with tempfile.TemporaryDirectory() as folder:
        command = [options.binary, "train", "--arch", grid["arch"], "--data", options.paths[0], *arguments(grid, method)]
        command += ["--sparsity", str(sparsity)]
        if options.jobs > 1:
            command += ["--threads", "1", "--workers", "1"]
        command += ["--epochs", str(grid["epochs"]), "--rate", str(grid["rate"]), "--seed", str(seed), "--validation", "0"]
        command += [*grid.get("more", []), "--quiet", "--json", "-", "--output", folder + "/run"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    report = json.loads(done.stdout)
    outcome = report["outcome"]
    return {
        "arch": grid["arch"], "method": method, "sparsity": sparsity, "seed": seed, "epochs": grid["epochs"],
        "test": outcome["test"]["value"], "realised": outcome["sparsity"], "images_per_second": outcome["images_per_second"],
        "waiting": outcome["waiting"],
    }


def subset(source, images, folder):
    """The first images of the first training batch as a dataset of their own: a fifth in each of the five files that it needs."""
    each, folder = images // 5 * RECORD, pathlib.Path(folder)
    pixels = (source / "data_batch_1.bin").read_bytes()
    for index in range(5):
        (folder / f"data_batch_{index + 1}.bin").write_bytes(pixels[index * each:(index + 1) * each])
    (folder / "test_batch.bin").write_bytes((source / "test_batch.bin").read_bytes())
    return str(folder)


def read(record):
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


def table(rows):
    for arch in dict.fromkeys(row["arch"] for row in rows):
        ours = [row for row in rows if row["arch"] == arch]
        sparsities = sorted({row["sparsity"] for row in ours})
        print(f"\n{arch}, {ours[0]['epochs']} epochs in all\n")
        print("| method |" + "".join(f" {s * 100:g} % |" for s in sparsities))
        print("| --- |" + " --- |" * len(sparsities))
        for method in dict.fromkeys(row["method"] for row in ours):
            cells = []
            for sparsity in sparsities:
                values = [100 * r["test"] for r in ours if (r["method"], r["sparsity"]) == (method, sparsity)]
                spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
                cells.append(f" {statistics.mean(values):.2f}{spread} |" if values else " |")
            print(f"| {method} |" + "".join(cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*GRIDS, "table"])
    parser.add_argument("paths", nargs="+", help="data folder and record, or the record alone")
    parser.add_argument("--binary", default="target/release/resprout")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, of one thread each if more than one")
    parser.add_argument("--images", type=int, help="CIFAR-10: so many images of the first training batch, not all five")
    options = parser.parse_args()
    record = pathlib.Path(options.paths[-1])
    if options.what == "table":
        return table(read(record))
    lock = threading.Lock()

    def run(task):
        row = train(options, *task)
        with lock, record.open("a") as file:
            file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)

    done = {(row["arch"], row["method"], row["sparsity"], row["seed"]) for row in read(record)}
    tasks = [(grid, *cell) for grid in GRIDS[options.what] for cell in runs(grid) if (grid["arch"], *cell) not in done]
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        if options.images:
            options.paths[0] = subset(pathlib.Path(options.paths[0]), options.images, folder)
        list(pool.map(run, tasks))


if __name__ == "__main__":
    main()
