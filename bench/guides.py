"""Runs every command of the README, the quick start, the page of exports and the guides in one folder, in the order of the pages.

    cargo build --release -p resprout-cli
    python bench/guides.py MODEL.onnx CIFAR_BINARY [PAGE ...]

MODEL is a network for CIFAR-10, CIFAR_BINARY holds the official binary batches. The folder is filled with the files that the pages
name; what would take hours is shortened, and the line printed shows how. Needs numpy, Pillow, torchvision and onnxruntime in the Python
on the path. Fails if a command does.
"""
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

import numpy
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESPROUT = ROOT / "target/release/resprout"
GUIDES = sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs/guides").glob("*.md"))
PAGES = ["README.md", "docs/quick-start.md", "docs/export.md", *GUIDES]
RECORD = 1 + 3 * 32 * 32

# What a page says, and what is run in its place.
SHORTER = [
    (r"^cargo run --release -p resprout-cli -- ", "resprout "),
    (r"--epochs \d+", "--epochs 1"),
    (r"--tune 30", "--tune 1"),
    (r"distill:steps=\d+", "distill:steps=5"),
    (r"--repair distill ", "--repair distill:steps=5 "),
    (r" --budget [\d.]+", ""),
    (r"^resprout compress", "resprout compress --budget 1"),
    (r"~/.local/share", "share"),
    (r"model.onnx --weights", "resnet18.onnx --weights"),
    (r"--ignore classifier --layer re:conv1", "--ignore re:linear --layer re:^conv1"),
]
# What cannot be run here, and why.
LEFT = [("cargo test", "the tests"), ("data fetch", "needs the network"), ("--launcher slurm", "needs Slurm")]
# A search that finds no network in its minute ends with 1 and says so.
MAY_FAIL = [("resprout compress", "no network")]


def blocks(page, *languages):
    return re.findall(rf"^```({'|'.join(languages)})\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)


def commands(page):
    for language, text in blocks(page, "sh", "console"):
        lines = re.sub(r"\s*\\\n\s*", " ", text).splitlines()
        typed = [line.removeprefix("$ ") for line in lines if language == "sh" or line.startswith(("$ ", "cargo "))]
        yield from (line for line in typed if line.startswith(("resprout ", "cargo ")))


def write_images(folder, records):
    folder.mkdir(parents=True)
    for index, record in enumerate(records):
        Image.fromarray(record[1:].reshape(3, 32, 32).transpose(1, 2, 0)).save(folder / f"{index:04}.png")


def prepare(work, model, cifar):
    """The files that the pages name."""
    import torch
    import torchvision

    for name in ["model", "dense", "resnet20", "cifar10_resnet20", "cifar10_resnet56"]:
        (work / f"{name}.onnx").write_bytes(model.read_bytes())
    for folder in [work, work / "cifar-10"]:
        folder.mkdir(exist_ok=True)
        for batch in ["data_batch_1.bin", "test_batch.bin"]:
            (folder / batch).symlink_to((cifar / batch).resolve())
    small = work / "data/cifar-10-batches-bin"
    small.mkdir(parents=True)
    for batch in [*(f"data_batch_{index}.bin" for index in range(1, 6)), "test_batch.bin"]:
        (small / batch).write_bytes((cifar / batch).read_bytes()[: 256 * RECORD])
    records = numpy.fromfile(cifar / "test_batch.bin", numpy.uint8).reshape(-1, RECORD)
    write_images(work / "images", records[:96])
    write_images(work / "test_images", records[96:160])
    for record_class in range(10):
        of_class = records[160:][records[160:, 0] == record_class]
        write_images(work / "train" / f"{record_class}", of_class[:20])
    labels = [f"{index:04}.png,{record[0]}\n" for index, record in enumerate(records[96:160])]
    (work / "labels.csv").write_text("".join(labels))
    state = torchvision.models.resnet18(weights=None).state_dict()
    for name in ["resnet18.pth", "checkpoint.pth"]:
        torch.save(state, work / name)
    (work / "share/bash-completion/completions").mkdir(parents=True)


def make_room(work, line):
    """A run's folder holds one run, and a search's one search."""
    folder = {"train": "run", "compress": "small"}.get(line.split()[1])
    if folder:
        shutil.rmtree(work / folder, ignore_errors=True)


def resume(work):
    """The recipe of the run that is there."""
    shutil.copy(work / "run/recipe.yaml", work / "recipe.yaml")


def run(work, line):
    for pattern, other in SHORTER:
        line = re.sub(pattern, other, line)
    resume(work) if "--resume" in line else make_room(work, line)
    began = time.monotonic()
    words = re.sub(r"^resprout ", shlex.quote(str(RESPROUT)) + " ", line)
    done = subprocess.run(["bash", "-c", words], cwd=work, capture_output=True, text=True)
    said = (done.stderr.strip().splitlines() or [""])[-1]
    allowed = any(part in line and why in said for part, why in MAY_FAIL)
    outcome = "ok" if done.returncode == 0 else "ok, ends with an answer" if allowed else "FAILED"
    print(f"{outcome:6} {time.monotonic() - began:6.1f} s  {line}", flush=True)
    if done.returncode:
        print(f"       {said}")
    return outcome != "FAILED"


def main(model, cifar, *pages):
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        prepare(work, model, cifar)
        for page in map(str, pages or PAGES):
            print(f"## {page}")
            for _, recipe in blocks(page, "yaml"):
                (work / "recipe.yaml").write_text(recipe)
            for line in commands(page):
                why = next((why for part, why in LEFT if part in line), None)
                if why:
                    print(f"left             {line}: {why}")
                elif not run(work, line):
                    failed += 1
    print(f"{failed} commands failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main(*map(pathlib.Path, sys.argv[1:])))
