"""Sparse and dense networks against ONNX Runtime on this machine, as JSON lines for record/. bench/benchmark_tables.py makes the tables.

    python bench/speed_models.py FOLDER
    cargo build --release -p resprout-cli
    python bench/speed_record.py FOLDER MACHINE RECORD.jsonl [PART_OF_A_NAME]

Run it on an idle machine, with the Python that has onnxruntime. MACHINE is the name in the tables. A row that RECORD has is not
measured again.
"""
import datetime
import json
import pathlib
import subprocess
import sys

from reference_runs import RESPROUT

RESNET50, RESNET18 = "ResNet-50", "ResNet-18-CIFAR"
MASKS = [("uniform90", "uniform 90 %"), ("uniform95", "uniform 95 %"), ("erk90", "ERK 90 %"), ("erk95", "ERK 95 %")]


def cases(folder):
    """Table, label, file, baseline, batch and options of each row."""
    for batch, options in [(1, ["--tune", "15", "--rounds", "11"]), (8, ["--tune", "20", "--rounds", "7"])]:
        for mask, words in MASKS:
            yield "sparse", f"{RESNET50}, {words}", folder / f"resnet50-{mask}.onnx", folder / "resnet50-dense.onnx", batch, options
    for batch, options in [(1, ["--tune", "8", "--rounds", "31"]), (32, ["--tune", "8", "--rounds", "9"])]:
        for mask, words in MASKS:
            yield "sparse", f"{RESNET18}, {words}", folder / f"resnet18cifar-{mask}.onnx", folder / "resnet18cifar-dense.onnx", batch, options
    for batch, options in [(1, ["--tune", "15", "--rounds", "9"]), (8, ["--tune", "30", "--rounds", "9"])]:
        yield "dense", RESNET50, folder / "resnet50-dense.onnx", folder / "resnet50-dense.onnx", batch, options
    for batch, options in [(1, ["--tune", "8", "--rounds", "31"]), (32, ["--tune", "8", "--rounds", "9"])]:
        yield "dense", RESNET18, folder / "resnet18cifar-dense.onnx", folder / "resnet18cifar-dense.onnx", batch, options


def main(folder, machine, record, part=""):
    record = pathlib.Path(record)
    rows = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    done = {(row["table"], row["row"]["network"], row["row"]["batch"]) for row in rows}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=RESPROUT.parent).stdout.strip()
    for kind, network, file, dense, batch, options in cases(pathlib.Path(folder)):
        table = f"{kind}-{machine.lower().replace(' ', '-')}"
        if (table, network, str(batch)) in done or part not in network:
            continue
        command = [RESPROUT, "bench", file, "--batch", str(batch), "--threads", "2", *options, "--against", "onnxruntime",
                   "--baseline-model", dense, "--python", sys.executable, "--quiet", "--json", "-"]
        report = json.loads(subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True).stdout)
        measured = report["rows"][0]
        ours, theirs, ratio = 1e3 * measured["ours"]["p50"], 1e3 * measured["baseline"]["times"]["p50"], measured["baseline"]["ratio"]
        line = {"table": table, "machine": machine, "cpu": report["cpu"], "isa": report["isa"], "date": str(datetime.date.today()), "commit": commit,
                "baseline": measured["baseline"]["name"], "options": " ".join(options),
                "row": {"network": network, "batch": str(batch), "microbatch": " > ".join(map(str, measured["microbatch"])),
                        "resprout (ms)": f"{ours:.2f}", "ONNX Runtime (ms)": f"{theirs:.2f}", "ratio": f"{ratio:.2f}"},
                "warnings": report["warnings"]}
        with open(record, "a") as lines:
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
        print(line["row"], flush=True)


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(*sys.argv[1:])
