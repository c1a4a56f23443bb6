"""The best of a grid of 40 networks made by hand, to lay beside what `resprout compress` finds.

    cargo build --release -p resprout-cli
    python bench/compress_grid.py MODEL CALIBRATION IMAGES TEST FOLDER RECORD.jsonl [OPTION ...]

Four allocations at ten sparsities, each repaired by least squares with the images that `compress` repairs with: two of three of
the first IMAGES. Each is measured on TEST. Only then they are timed, in turns with the dense network, so that the machine can do
other things before. Options of images follow: --preset imagenet. What FOLDER and RECORD have is not made or timed again.
"""
import json
import pathlib
import statistics
import subprocess
import sys

from reference_runs import RESPROUT

ALLOCATIONS = ["lamp", "global", "erk", "uniform"]
SPARSITIES = [0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]


def report(*arguments):
    command = [str(word) for word in [RESPROUT, *arguments, "--quiet", "--json", "-"]]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def faster(dense, sparse, turns=5):
    """The median over turns of the dense network's time by the other's."""
    def time(file):
        return report("bench", file, "--threads", "2", "--rounds", "3")["rows"][0]["ours"]["p50"]
    return statistics.median(time(dense) / time(sparse) for _ in range(turns))


def made(model, file, allocation, sparsity, calibration, images, test, options):
    """The accuracy of the network, which is written if it is not there."""
    accuracy = file.with_suffix(".json")
    if not accuracy.exists():
        done = report("prune", model, "-s", sparsity, "--allocation", allocation, "--repair", "least-squares", "--calibration", calibration,
                      "--calibration-images", images, "--hold-out", 3, "--data", test, "-o", file, *options)
        networks = dict(done["evaluation"]["networks"])
        accuracy.write_text(json.dumps({name: networks[name]["top1"]["value"] for name in ("dense", "repaired")}))
    return json.loads(accuracy.read_text())


def main(model, calibration, images, test, folder, record, *options):
    folder, record = pathlib.Path(folder), pathlib.Path(record)
    folder.mkdir(parents=True, exist_ok=True)
    name = pathlib.Path(model).stem
    grid = {(allocation, sparsity): folder / f"{name}-{allocation}-{sparsity}.onnx" for allocation in ALLOCATIONS for sparsity in SPARSITIES}
    accuracy = {}
    for (allocation, sparsity), file in grid.items():
        accuracy[allocation, sparsity] = made(model, file, allocation, sparsity, calibration, images, test, options)
        print(allocation, sparsity, accuracy[allocation, sparsity], flush=True)
    rows = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    done = {(row["model"], row["allocation"], row["sparsity"]) for row in rows}
    for (allocation, sparsity), file in grid.items():
        if (name, allocation, sparsity) in done:
            continue
        top1 = accuracy[allocation, sparsity]
        row = {"model": name, "allocation": allocation, "sparsity": sparsity, "faster": faster(model, file), "dense": top1["dense"],
               "top1": top1["repaired"]}
        rows.append(row)
        with open(record, "a") as lines:
            lines.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
    for factor in (1.5, 2, 2.5, 3):
        kept = [row for row in rows if row["model"] == name and row["faster"] >= factor]
        best = max(kept, key=lambda row: row["top1"], default=None)
        print(f"at least {factor} times as fast:", json.dumps(best))


if __name__ == "__main__":
    if len(sys.argv) < 7:
        sys.exit(__doc__)
    main(*sys.argv[1:])
