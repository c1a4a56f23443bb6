"""Kept counts and accuracy against the runs of an independent implementation.

    cargo build --release -p resprout-cli
    python bench/reference_runs.py DATA CIFAR_BINARY WORK

DATA holds models/*.onnx, imagenet/*.jpg with labels.csv, and beside it reference/*.json; CIFAR_BINARY the
official binary batches. Calibration: CIFAR training images 0 to 1023; ImageNet the first 128 images of
index mod 4 = 0, scored on mod 4 = 2 (linked into WORK).
"""
import json
import pathlib
import subprocess
import sys

RESPROUT = pathlib.Path(__file__).parent.parent / "target/release/resprout"
NORM = ["--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"]


def link_images(source, target, remainder):
    target.mkdir(parents=True, exist_ok=True)
    for image in sorted(source.glob("*.jpg")):
        if int(image.name[:4]) % 4 == remainder and not (target / image.name).exists():
            (target / image.name).symlink_to(image.resolve())
    labels = target / "labels.csv"
    labels.exists() or labels.symlink_to((source / "labels.csv").resolve())
    return str(target)


def main(data, cifar, work):
    data, cifar, work = pathlib.Path(data), pathlib.Path(cifar), pathlib.Path(work)
    small = ["--calibration", cifar / "data_batch_1.bin", "--calibration-images", "1024", "--data", cifar / "test_batch.bin"]
    large = ["--calibration", link_images(data / "imagenet", work / "calibration", 0), "--calibration-images", "128",
             "--data", link_images(data / "imagenet", work / "test", 2), "--resize", "0", "--crop", "224"]
    for file in sorted((data / "../reference").glob("*.json")):
        reference = json.loads(file.read_text())
        for run in reference["runs"]:
            command = [RESPROUT, "prune", data / "models" / reference["model"], "-o", work / "out.onnx", "-s", str(run["sparsity"]),
                       "--allocation", run["allocation"], "--repair", "bn", "--json", "-", *NORM, *(small if "cifar" in file.name else large)]
            report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            networks = dict(report["evaluation"]["networks"])
            top1 = lambda name: f"{networks[name]['top1']['value'] * 100:.2f}"
            kept = [layer["kept"] for layer in report["layers"]] == run["kept"]
            print(f"| {file.stem} | {run['allocation']} {run['sparsity']} | {'equal' if kept else 'DIFFERENT'} "
                  f"| {top1('dense')} / {reference['dense']['top1']:.2f} | {top1('pruned')} / {run['none']['top1']:.2f} "
                  f"| {top1('repaired')} / {run['bn_recalibration']['top1']:.2f} "
                  f"| {networks['repaired']['kl']['value']:.4f} / {run['bn_recalibration']['kl']:.4f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
