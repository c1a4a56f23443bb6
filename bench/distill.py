"""Distillation behind least squares in steps: accuracy, agreement, KL and CPU seconds, as Markdown and as JSON lines.

    cargo build --release -p resprout-cli
    python bench/distill.py STUDY DATA CIFAR_BINARY WORK RECORD.jsonl

STUDY: table (ResNet-20 and -56 with 1024 and 10,000 images, MobileNetV2 with LAMP), seeds (three of them), steps (least squares in
more steps beside more training), harm (128 images, images of another kind, noise), scope (whole, by block, between steps). DATA
holds models/*.onnx and imagenet/*.jpg with labels.csv, CIFAR_BINARY the official binary batches. Calibration: CIFAR training images
from the first on, ImageNet index mod 4 = 0. Scored on the CIFAR test set and on ImageNet index mod 4 = 2.
"""
import hashlib
import json
import pathlib
import resource
import subprocess
import sys

from reference_runs import NORM, RESPROUT, link_images


def cpu():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Bench:
    def __init__(self, study, data, cifar, work, record):
        self.study, self.data, self.work, self.record = study, data, work, record
        self.small = ["--calibration", cifar / "data_batch_1.bin", *NORM]
        self.many = ["--calibration", cifar / "data_batch_1.bin", *NORM, "--calibration-images", 10000]
        self.few = ["--calibration", cifar / "data_batch_1.bin", *NORM, "--calibration-images", 128]
        self.other = ["--calibration", crops(data / "imagenet", work / "other"), *NORM]
        self.noise = ["--data-free", *NORM]
        self.test = ["--data", cifar / "test_batch.bin"]
        crop = ["--resize", "0", "--crop", "224", "--memory", "8"]
        self.large = ["--calibration", link_images(data / "imagenet", work / "calibration", 0), *NORM, *crop]
        self.large_test = ["--data", link_images(data / "imagenet", work / "test", 2)]

    def prune(self, out, *arguments):
        """The report and CPU seconds of one command."""
        before = cpu()
        command = [RESPROUT, "prune", *arguments, "-o", out, "--json", "-"]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
        return json.loads(done.stdout), cpu() - before

    def start(self, name, sparsity, images, steps=6, allocation="global"):
        """The file that least squares leaves, and its CPU seconds. The images that `distill` judges by are not fitted."""
        key = f"held-{name}-{sparsity}-{allocation}-{steps}-{hashlib.sha256(str(list(map(str, images))).encode()).hexdigest()[:8]}"
        file, note = self.work / f"{key}.onnx", self.work / f"{key}.cpu"
        if not note.exists():
            more = ["--allocation", allocation, "--repair", "least-squares", "--steps", steps, "--no-evaluation"]
            more += ["--hold-out", 8] if "--calibration" in images else []
            _, seconds = self.prune(file, self.model(name), "-s", sparsity, *more, *images)
            note.write_text(str(seconds))
        return file, float(note.read_text())

    def model(self, name):
        return self.data / f"models/{name}.onnx"

    def line(self, name, sparsity, repair, images, fitted=None, steps=6, allocation="global", test=None):
        """One line: the start, and `repair` from there. `fitted` are the images of least squares, if others. A line that the record
        has is not measured again."""
        given = [pathlib.Path(str(part)).name for part in images]
        key = [self.study, name, sparsity, steps, repair, given]
        rows = [json.loads(line) for line in self.record.read_text().splitlines()] if self.record.exists() else []
        rows = [row for row in rows if row.get("held_out") == 8]
        if any([row[part] for part in ["study", "model", "sparsity", "steps", "repair", "images"]] == key for row in rows):
            return
        file, before = self.start(name, sparsity, fitted or images, steps, allocation)
        test = test or self.test
        report, seconds = self.prune(self.work / "out.onnx", file, "-s", 0, "--reference", self.model(name), "--repair", repair, *images, *test)
        networks = dict(report["evaluation"]["networks"])
        row = {"study": self.study, "model": name, "sparsity": sparsity, "steps": steps, "repair": repair, "images": given, "held_out": 8,
               "start": networks["pruned"]["top1"]["value"], "cpu_start": round(before, 1), "cpu": round(seconds, 1),
               "trained": report["repair"] and report["repair"]["trained"], "warnings": [w for w in report["warnings"] if "distill" in w]}
        last = networks.get("repaired", networks["pruned"])
        row |= {key: last[key]["value"] for key in ["top1", "agreement", "kl"]}
        with open(self.record, "a") as lines:
            lines.write(json.dumps(row) + "\n")
        print(f"| {name} | {sparsity} | {repair} | {steps} | {row['start'] * 100:.2f} | {row['top1'] * 100:.2f} | {row['agreement'] * 100:.2f} "
              f"| {row['kl']:.4f} | {before:.0f} + {seconds:.0f} |", flush=True)


def crops(source, target):
    """The middle 32x32 pixels of each photograph, as PNG."""
    from PIL import Image
    target.mkdir(parents=True, exist_ok=True)
    for file in sorted(source.glob("*.jpg")):
        image = Image.open(file).convert("RGB").resize((64, 64), Image.BILINEAR).crop((16, 16, 48, 48))
        image.save(target / f"{file.stem}.png")
    return target


CIFAR = [("cifar10_resnet20", s) for s in (0.8, 0.9, 0.95, 0.97)] + [("cifar10_resnet56", s) for s in (0.9, 0.95)]


def table(b):
    for images in [b.small, b.many]:
        for name, sparsity in CIFAR:
            b.line(name, sparsity, "distill", images, fitted=b.small)
    for sparsity in [0.5, 0.7]:
        b.line("imagenet_mobilenet_v2", sparsity, "distill:batch=16", b.large, steps=3, allocation="lamp", test=b.large_test)


def seeds(b):
    for seed in [0, 1, 2]:
        for name, sparsity in CIFAR:
            b.line(name, sparsity, f"distill:seed={seed}", b.small)


def steps(b):
    for count in [6, 12, 20]:
        for repair in ["none", "distill:steps=240", "distill:steps=750", "distill", "distill:steps=3000"]:
            b.line("cifar10_resnet20", 0.95, repair, b.small, steps=count)


def harm(b):
    for sparsity in [0.9, 0.95]:
        for images in [b.few, b.other, b.noise]:
            b.line("cifar10_resnet20", sparsity, "distill", images, fitted=b.small)
            b.line("cifar10_resnet20", sparsity, "distill", images)
        b.line("cifar10_resnet20", sparsity, "distill:domain=any", b.noise, fitted=b.small)


def scope(b):
    for repair in ["distill", "distill:scope=block", "distill:scope=block:steps=750,distill:steps=750", "distill:blocks=0"]:
        b.line("cifar10_resnet20", 0.95, repair, b.small)


def main(study, *paths):
    data, cifar, work, record = map(pathlib.Path, paths)
    studies = {study.__name__: study for study in (table, seeds, steps, harm, scope)}
    print("| network | sparsity | repair | steps | start | top-1 | agreement | KL | CPU s |\n" + "| --- " * 9 + "|", flush=True)
    studies[study](Bench(study, data, cifar, work, record))


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
