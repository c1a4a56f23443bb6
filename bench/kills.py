"""Kills each kind of long run at random moments, and resumes it until it ends as a run that nobody killed.

    cargo build --release -p resprout-cli
    python bench/kills.py [--kills 200] [--only prune,sweep,train,compress] [--json FILE]

A run is killed by SIGKILL, at moments spread evenly over the time of a whole one, and started again by the same command. When it ends, its
files must be those of the whole run to the bit, and a new one begins. After each kill, what was finished before must still be there: steps of
`prune`, lines of `sweep`, epochs of `train`, candidates of `compress`.
"""
import argparse
import hashlib
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
ASSETS = ROOT / "crates/resprout-cli/assets"
NORM = ["--scale", "1", "--mean", "4.884", "--std", "6.017"]
IMAGES = ASSETS / "digits-images-idx3-ubyte.gz"
SWEEP = """models: [digits]
allocations: [erk, lamp]
sparsities: [0.5, 0.7, 0.8, 0.9]
repairs: [none, bn, least-squares]
calibration_images: [64]
limit: 200
diagnostic_images: 16
"""


def lines(path):
    return path.read_text().splitlines() if path.exists() else []


class Prune:
    command = ["prune", ASSETS / "digits.onnx", "-s", "0.95", "--steps", "12", "--repair", "least-squares", "--calibration", IMAGES,
               "--calibration-images", "500", "--no-evaluation", *NORM, "--checkpoint", "{folder}/steps", "-o", "{folder}/sparse.onnx"]
    results = ["sparse.onnx"]

    def finished(folder):
        return {step for path in folder.glob("steps/*.json") for step in range(json.loads(path.read_text())["steps_done"])}


class Sweep:
    command = ["sweep", "{folder}/../recipe.yaml", "--jobs", "2", "-o", "{folder}"]
    results = ["journal.jsonl", "study.json"]

    def finished(folder):
        # A last line without its end is of a cell that is not finished.
        path = folder / "journal.jsonl"
        return set(path.read_text().split("\n")[:-1]) if path.exists() else set()


class Train:
    command = ["train", "--arch", "resnet-20", "--epochs", "4", "--method", "progressive:every=0.3", "--resume", "-o", "{folder}"]
    results = ["model.onnx", "best.onnx"]

    def finished(folder):
        return {json.loads(line)["epoch"] for line in lines(folder / "journal.jsonl")}


class Compress:
    # Its wishes have nothing to do with time, which is never the same.
    command = ["compress", ASSETS / "digits.onnx", "--parameters", "0.4", "--max-loss", "3", "--pattern", "unstructured", "--calibration", IMAGES,
               "--calibration-images", "150", *NORM, "-o", "{folder}"]
    results = ["model.onnx"]

    def finished(folder):
        path = folder / "candidates.json"
        rows = json.loads(path.read_text())["rows"] if path.exists() else []
        return {json.dumps([row[name] for name in ("candidate", "repair", "steps", "stage")]) for row in rows}


KINDS = {"prune": Prune, "sweep": Sweep, "train": Train, "compress": Compress}


def start(resprout, kind, folder):
    words = [str(word).replace("{folder}", str(folder)) for word in kind.command]
    return subprocess.Popen([resprout, *words, "--quiet"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def run(resprout, kind, folder):
    began = time.monotonic()
    process = start(resprout, kind, folder)
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    return time.monotonic() - began


def digests(kind, folder):
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in kind.results}


def attempt(resprout, kind, folder, delay):
    """Starts the run and kills it after so many seconds. Whether it was still running."""
    process = start(resprout, kind, folder)
    try:
        errors = process.communicate(timeout=delay)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    assert process.returncode == 0, errors
    return False


def measure(resprout, kind, kills, work):
    whole = work / "whole"
    whole.mkdir()
    seconds = run(resprout, kind, whole)
    expected = digests(kind, whole)
    assert kind.finished(whole), "the whole run left nothing that counts as finished"
    rng = random.Random(1)
    killed = runs = resumed = 0
    while killed < kills:
        folder = work / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        before, of_run = set(), 0
        while of_run < 40 and killed < kills and attempt(resprout, kind, folder, rng.random() * seconds):
            killed, of_run = killed + 1, of_run + 1
            now = kind.finished(folder)
            assert before <= now, f"lost by kill {killed}: {sorted(before - now)}"
            resumed += bool(before)
            before = now
        run(resprout, kind, folder)
        assert before <= kind.finished(folder), "the end lost what was finished"
        assert digests(kind, folder) == expected, f"after {of_run} kills the files differ from the whole run's"
        runs += 1
    return {"seconds": round(seconds, 2), "kills": killed, "of them with finished work": resumed, "runs": runs, "equal": runs}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--resprout", default=ROOT / "target/release/resprout")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    rows = {}
    for name in options.only.split(","):
        with tempfile.TemporaryDirectory() as work:
            work = pathlib.Path(work)
            (work / "recipe.yaml").write_text(SWEEP)
            rows[name] = measure(options.resprout, KINDS[name], options.kills, work)
        print(name, json.dumps(rows[name]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
