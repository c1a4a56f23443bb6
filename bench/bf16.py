"""PyTorch's bf16 as a baseline of a sparse ResNet-50: both in turns, medians, and the median of the rounds' ratios.

bf16.py MODEL [BATCH [ROUNDS [RESPROUT]]]: MODEL is one of the sparse ResNet-50 of speed_models.py, RESPROUT the program. Needs
torch and torchvision; weights are random, only the time is looked at.

Where a CPU names AMX but does not let programs use it, ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 keeps PyTorch from it.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch
import torchvision

model, batch, rounds, resprout = (sys.argv[1:] + ["1", "9", "target/release/resprout"][len(sys.argv) - 2 :])[:4]
batch, rounds = int(batch), int(rounds)
BATCHES = 6
# The baseline's threads wait by spinning, which takes CPUs from us.
PAUSE = 1.0
torch.set_num_threads(2)


def baseline(dtype):
    """A function that gives the median seconds of a few batches."""
    last = {"dtype": dtype, "memory_format": torch.channels_last}
    network = torchvision.models.resnet50(weights=None).eval().to(**last)
    images = torch.randn(batch, 3, 224, 224).to(**last)
    with torch.inference_mode():
        network = torch.jit.freeze(torch.jit.trace(network, images))

    def seconds():
        times = []
        with torch.inference_mode():
            for _ in range(BATCHES):
                start = time.perf_counter()
                network(images)
                times.append(time.perf_counter() - start)
        return statistics.median(times[1:])

    seconds()
    return seconds


def ours(plan):
    command = [resprout, "bench", model, "--batch", str(batch), "--threads", "2", "--rounds", "5", "--quiet"]
    command += ["--plan", plan, "--tune", "20", "--json", "-"]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(report)["rows"][0]["ours"]["p50"]


baselines = {"float32": baseline(torch.float32), "bfloat16": baseline(torch.bfloat16)}
times = {name: [] for name in ["ours", *baselines]}
with tempfile.TemporaryDirectory() as folder:
    plan = os.path.join(folder, "plan")
    ours(plan)
    for _ in range(rounds):
        time.sleep(PAUSE)
        times["ours"].append(ours(plan))
        for name, seconds in baselines.items():
            times[name].append(seconds())
print(torch.__version__, os.environ.get("ONEDNN_MAX_CPU_ISA", "every instruction of this CPU"))
for name, all in times.items():
    ratio = statistics.median(other / own for own, other in zip(times["ours"], all))
    print(f"{name:9} {statistics.median(all) * 1e3:8.2f} ms, {ratio:.2f} times ours")
