"""One and two threads, ours and ONNX Runtime's, beside other busy programs or under a quota of CPU time.

    python bench/speed_models.py FOLDER
    python bench/contend.py FOLDER/resnet18cifar-uniform90.onnx --dense FOLDER/resnet18cifar-dense.onnx
    python bench/contend.py MODEL --dense DENSE --quota 1

Each repetition measures every number of busy threads. One and two threads and both engines take turns. All times are medians of all repetitions.
"two/one" is our time with two threads by that with one. "ratio" is that of the mean times, ONNX Runtime's by ours: a median jumps by a whole turn
of the scheduler where about half of the batches are interrupted. "kept" is the ratio by that on the idle machine. With --quota the process gets so many CPUs' time by a
cgroup (version 1; needs root), with --cpus by its affinity.
"""
import argparse
import contextlib
import json
import os
import pathlib
import statistics
import subprocess
import sys


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--dense", help="the file that ONNX Runtime runs")
    parser.add_argument("--resprout", default="target/release/resprout")
    parser.add_argument("--contend", default="0,4,10")
    parser.add_argument("--quota", type=float, help="CPUs' worth of time")
    parser.add_argument("--cpus", help="a list for taskset")
    parser.add_argument("--input-shape")
    parser.add_argument("--rounds", default="9")
    parser.add_argument("--repeat", type=int, default=3)
    return parser.parse_args()


@contextlib.contextmanager
def quota(cpus):
    """Gives this process and its children so much of the CPUs' time."""
    if cpus is None:
        yield
        return
    group = pathlib.Path("/sys/fs/cgroup/cpu/resprout-contend")
    group.mkdir()
    try:
        period = int((group / "cpu.cfs_period_us").read_text())
        (group / "cpu.cfs_quota_us").write_text(str(int(cpus * period)))
        (group / "cgroup.procs").write_text(str(os.getpid()))
        yield
    finally:
        (group.parent / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()


def measure(args, contend):
    command = ["taskset", "-c", args.cpus] if args.cpus else []
    command += [args.resprout, "bench", args.model, "--bench-threads", "1,2", "--contend", str(contend)]
    command += ["--rounds", args.rounds, "--against", "onnxruntime", "--python", sys.executable, "--json", "-"]
    command += ["--baseline-model", args.dense] if args.dense else []
    command += ["--input-shape", args.input_shape] if args.input_shape else []
    rows = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["rows"]
    ratio = lambda row: row["baseline"]["times"]["mean"] / row["ours"]["mean"]
    return [(row["ours"]["p50"], row["baseline"]["times"]["p50"], ratio(row)) for row in rows]


def main():
    args = arguments()
    contends = [int(n) for n in args.contend.split(",")]
    found = {contend: [] for contend in contends}
    idle = measure(args, 0)[1][2] if args.quota or args.cpus else None
    with quota(args.quota):
        for _ in range(args.repeat):
            for contend in contends:
                found[contend].append(measure(args, contend))
    median = lambda contend, of: statistics.median(of(rows) for rows in found[contend])
    idle = idle or median(contends[0], lambda rows: rows[1][2])
    print("| busy threads | 1 thread (ms) | 2 threads (ms) | two/one | ONNX Runtime, 2 threads (ms) | ratio | kept |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for contend in contends:
        one, two, theirs = (1e3 * median(contend, lambda rows: rows[i][j]) for i, j in [(0, 0), (1, 0), (1, 1)])
        share = median(contend, lambda rows: rows[1][0] / rows[0][0])
        ratio = median(contend, lambda rows: rows[1][2])
        print(f"| {contend} | {one:.2f} | {two:.2f} | {share:.2f} | {theirs:.2f} | {ratio:.2f} | {ratio / idle:.2f} |", flush=True)


if __name__ == "__main__":
    main()
