"""Patterns at equal density under every repair: unstructured, n:m, mixed n:m and whole channels.

    cargo build --release -p resprout-cli
    python bench/patterns.py run MODEL CALIBRATION DATA record/DATE-patterns.jsonl [EXTRA ARGUMENTS OF PRUNE]
    python bench/patterns.py table record/DATE-patterns.jsonl

Half of the prunable weights stay. A row per combination is appended to the record; those in it are not repeated.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent
HALF = ["--sparsity", "0.5"]
PATTERNS = {
    "unstructured": HALF, "2:4": [], "4:8": [], "mixed:m=4": HALF, "mixed:m=8": HALF, "channel": HALF,
    "channel uniform": [*HALF, "--allocation", "uniform"],
}
REPAIRS = ["none", "bn", "layerwise,bn", "channelwise,bn", "asr,bn", "least-squares"]


def read(record):
    return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []


def run(model, calibration, data, record, extra):
    name = pathlib.Path(model).stem
    for repair in REPAIRS:
        for pattern, arguments in PATTERNS.items():
            if any((row["model"], row["pattern"], row["repair"]) == (name, pattern, repair) for row in read(record)):
                continue
            with tempfile.TemporaryDirectory() as folder:
                command = [ROOT / "target/release/resprout", "prune", model, "--pattern", pattern.split()[0], *arguments]
                command += ["--repair", repair, "--calibration", calibration, "--data", data, *extra]
                command += ["--quiet", "--json", "-", "-o", folder + "/x.onnx"]
                done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
            report = json.loads(done.stdout)
            _, last = report["evaluation"]["networks"][-1]
            row = {
                "model": name, "pattern": pattern, "repair": repair, "top1": last["top1"]["value"],
                "sparsity": report["sparsity"]["of_prunable"], "images": report["evaluation"]["images"],
            }
            with record.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


def table(record):
    rows = read(record)
    for model in dict.fromkeys(row["model"] for row in rows):
        ours = [row for row in rows if row["model"] == model]
        print(f"\n{model}, {ours[0]['images']} images\n\n| pattern | sparsity | " + " | ".join(REPAIRS) + " |")
        print("| --- |" + " --- |" * (len(REPAIRS) + 1))
        for pattern in PATTERNS:
            of = {row["repair"]: row for row in ours if row["pattern"] == pattern}
            cells = [f"{100 * of[repair]['top1']:.2f}" if repair in of else "" for repair in REPAIRS]
            sparsity = f"{100 * next(iter(of.values()))['sparsity']:.1f}" if of else ""
            print(f"| {pattern} | {sparsity} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(*sys.argv[2:5], pathlib.Path(sys.argv[5]), sys.argv[6:])
    else:
        table(pathlib.Path(sys.argv[2]))
