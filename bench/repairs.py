"""Label-free repairs side by side: accuracy, agreement, KL and seconds, as Markdown and as JSON lines.

    cargo build --release -p resprout-cli
    python bench/repairs.py STUDY DATA CIFAR_BINARY WORK RECORD.jsonl

STUDY: repairs (all repairs, ResNet-20 and -56), mobilenet (LAMP 50 %), asr (every placement and rule; needs the onnx
package for the network with small weights), auto, datafree. DATA holds models/*.onnx and imagenet/*.jpg with labels.csv,
CIFAR_BINARY the official binary batches. Calibration: CIFAR training images 0 to 1023, ImageNet index mod 4 = 0.
Scored on the CIFAR test set (its first 2000 images in the asr study) and on ImageNet index mod 4 = 2.
"""
import json
import pathlib
import subprocess
import sys

from reference_runs import NORM, RESPROUT, link_images

STALE = "bn:variant=ema:reset=no:batch=256"


def run(record, study, model, sparsity, repair, images, *more):
    """One line of the table."""
    out = record.parent / "repairs-out.onnx"
    command = [RESPROUT, "prune", model, "-o", out, "-s", str(sparsity), "--repair", repair, "--json", "-", *images, *more]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    out.unlink(missing_ok=True)
    if done.returncode:
        print(f"| {model.stem} | {sparsity} | {repair} | {done.stderr.strip()} |", flush=True)
        return
    report = json.loads(done.stdout)
    networks = dict(report["evaluation"]["networks"])
    last = networks.get("repaired", networks["pruned"])
    seconds = dict(report["seconds"])["prune and repair"]
    row = {"study": study, "model": model.stem, "sparsity": sparsity, "repair": repair, "more": [str(m) for m in more],
           "top1": last["top1"]["value"], "agreement": last["agreement"]["value"], "kl": last["kl"]["value"],
           "seconds": round(seconds, 2), "chosen": report["repair"] and report["repair"]["chain"]}
    with open(record, "a") as file:
        file.write(json.dumps(row) + "\n")
    more = " ".join(str(m) for m in more if not str(m).startswith("--allocation"))
    print(f"| {model.stem} | {sparsity} | {repair} {more} | {last['top1']['value'] * 100:.2f} | {last['agreement']['value'] * 100:.2f} "
          f"| {last['kl']['value']:.4f} | {seconds:.1f} |", flush=True)


def repairs(data, small, large, line):
    always = ["none", "bn", "asr,bn", "bn,stats", "least-squares"]
    more = ["bias", "layerwise", "channelwise", "asr", STALE, "stats"]
    for name, chains, steps in [("resnet20", always + more, {0.8: 6, 0.9: 12, 0.95: 20}), ("resnet56", always, {0.8: 4, 0.9: 8, 0.95: 12})]:
        model = data / f"models/cifar10_{name}.onnx"
        for sparsity, count in steps.items():
            for chain in chains:
                line(model, sparsity, chain, small, "--allocation", "global")
            line(model, sparsity, "least-squares", small, "--allocation", "global", "--steps", count)


def mobilenet(data, small, large, line):
    model = data / "models/imagenet_mobilenet_v2.onnx"
    for chain in ["none", "bias", "bn", "asr,bn", "bn,stats", "least-squares", "least-squares:norm=recalibrate"]:
        line(model, 0.5, chain, large)
    line(model, 0.5, "least-squares", large, "--steps", 3)


def asr(data, small, large, line):
    from scaled_norm import scale
    rules = ["signal", "ratio", "wiener", "bayes"]
    limit = ["--allocation", "global", "--limit", "2000"]
    for name in ["resnet20", "small_resnet20", "resnet56"]:
        model = data / f"models/cifar10_{name}.onnx"
        if name.startswith("small"):
            model = scale(data / "models/cifar10_resnet20.onnx", small[-1].parent / "cifar10_small_resnet20.onnx")
        for chain in ["none", "layerwise", "channelwise", *(f"asr:rule={rule}" for rule in rules)]:
            line(model, 0.9, chain, small, *limit)
        for norm in ["bn", STALE]:
            chains = [norm, f"layerwise,{norm}", f"channelwise,{norm}", *(f"asr:rule={rule},{norm}" for rule in rules)]
            chains += [f"{norm},asr:placement={place}:rule={rule}" for place in ["p3", "p4"] for rule in rules]
            for chain in chains:
                line(model, 0.9, chain, small, *limit)


def auto(data, small, large, line):
    for name in ["resnet20", "resnet56"]:
        for sparsity in [0.8, 0.9, 0.95]:
            line(data / f"models/cifar10_{name}.onnx", sparsity, "auto", small, "--allocation", "global")
    model = data / "models/imagenet_mobilenet_v2.onnx"
    line(model, 0.5, "auto", large)
    for chain in ["none", "bn", "auto"]:
        line(model, 0.2, chain, large, "--calibration-images", 16)


def datafree(data, small, large, line):
    model = data / "models/cifar10_resnet20.onnx"
    for sparsity in [0.8, 0.9]:
        for chain in ["bn", "least-squares"]:
            line(model, sparsity, chain, ["--data-free", *small[2:]], "--allocation", "global")


def main(study, data, cifar, work, record):
    data, cifar, work, record = (pathlib.Path(path) for path in (data, cifar, work, record))
    small = ["--calibration", cifar / "data_batch_1.bin", *NORM, "--data", cifar / "test_batch.bin"]
    large = ["--calibration", link_images(data / "imagenet", work / "calibration", 0), *NORM, "--resize", "0", "--crop", "224", "--memory", "8",
             "--data", link_images(data / "imagenet", work / "test", 2)]
    studies = {study.__name__: study for study in (repairs, mobilenet, asr, auto, datafree)}
    print("| network | sparsity | repair | top-1 | agreement | KL | seconds |\n| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    studies[study](data, small, large, lambda *args: run(record, study, *args))


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
