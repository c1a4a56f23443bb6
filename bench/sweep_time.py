"""The time of a sweep against the same cells one after another by `resprout prune`.

    cargo build --release -p resprout-cli
    python bench/sweep_time.py whole MODEL CALIBRATION DATA [EXTRA ARGUMENTS OF PRUNE]
    python bench/sweep_time.py sample MODEL CALIBRATION DATA [EXTRA ARGUMENTS OF PRUNE]

The whole grid is that of docs/study.md without its random control, 216 cells; the sample takes ERK at three sparsities, 18 cells.
The sample's sweep is timed twice: as it is, and without comparing every layer with the dense network, which prune does not do
either. Prints the times and their ratios.
"""
import itertools
import json
import pathlib
import subprocess
import sys
import tempfile
import time

BINARY = pathlib.Path(__file__).parent.parent / "target/release/resprout"
GRIDS = {
    "whole": (["uniform", "erk", "lamp", "global"], [0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95, 0.97], [64]),
    "sample": (["erk"], [0.5, 0.9, 0.97], [64, 0]),
}
REPAIRS = ["none", "bn", "layerwise,bn", "channelwise,bn", "asr,bn", "least-squares"]
IMAGES = 256
LIMIT = 2000


def main(grid, model, calibration, data, *extra):
    allocations, sparsities, diagnostic_images = GRIDS[grid]
    keys = dict(zip([word.lstrip("-") for word in extra[::2]], extra[1::2]))
    keys = {key: [float(v) for v in value.split(",")] if key in ("mean", "std") else value for key, value in keys.items()}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        recipe = {
            "models": [{"path": model}], "calibration": calibration, "data": data, "limit": LIMIT, "allocations": allocations,
            "sparsities": sparsities, "repairs": REPAIRS, "calibration_images": [IMAGES], "controls": False, **keys,
        }
        sweeps = []
        for images in diagnostic_images:
            (folder / "recipe.yaml").write_text(json.dumps({**recipe, "diagnostic_images": images}))
            start = time.perf_counter()
            command = [BINARY, "sweep", folder / "recipe.yaml", "-o", folder / f"study-{images}", "--jobs", "2"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            sweeps.append(time.perf_counter() - start)
        start = time.perf_counter()
        cells = list(itertools.product(allocations, sparsities, REPAIRS))
        for allocation, sparsity, repair in cells:
            command = [BINARY, "prune", model, "-o", folder / "out.onnx", "--sparsity", str(sparsity), "--allocation", allocation]
            command += ["--repair", repair, "--calibration", calibration, "--calibration-images", str(IMAGES)]
            command += ["--data", data, "--limit", str(LIMIT), "--json", folder / "report.json", *extra]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        prune = time.perf_counter() - start
    ratios = [round(prune / sweep, 2) for sweep in sweeps]
    print(json.dumps({"cells": len(cells), "sweep_s": [round(s, 1) for s in sweeps], "prune_s": round(prune, 1), "ratio": ratios}))


if __name__ == "__main__":
    main(*sys.argv[1:])
