"""Sequential fixed-mask least squares: resprout against PyTorch, as whole processes that take turns.

    cargo build --release -p resprout-cli
    python bench/least_squares.py MODEL.onnx CIFAR_BINARY [REPEATS]              (1024 images, global magnitude, 90 %)
    python bench/least_squares.py MODEL.onnx IMAGE_FOLDER [REPEATS]              (64 images of 224x224, uniform magnitude, 70 %)
    python bench/least_squares.py --torch MODEL.onnx CIFAR_BINARY_OR_FOLDER      (one run of the PyTorch side)
    python bench/least_squares.py --large                             (memory and time of a 512x512x3x3 layer at 90 %)

Both do the same sums: up to 65,536 positions of the images, dense and pruned network in lock-step. Each row of surviving weights
is fitted to the dense network's pre-activations, and the running mean takes the intercept. PyTorch decomposes the rows of a layer in
batches, filled up to the longest. 2 threads each. PyTorch's time is given with and without start-up and imports.
"""
import pathlib
import subprocess
import sys
import tempfile
import time

RESPROUT = pathlib.Path(__file__).parent.parent / "target/release/resprout"
ROWS, DAMP, BATCH_BYTES = 65536, 0.1, 1 << 29


def settings(data):
    """Images, sparsity, allocation, images that go through a layer together, and what resprout is told about the images."""
    cifar = pathlib.Path(data) / "data_batch_1.bin"
    if cifar.exists():
        return 1024, 0.9, "global", 128, [cifar]
    return 64, 0.7, "uniform", 16, [data, "--preset", "imagenet"]


REPAIR = f"least-squares:target=layer:activation=0:damp={DAMP}:rows={ROWS}"


def torch_side(model_path, data):
    start = time.perf_counter()
    import numpy as np
    import onnx
    import torch
    import torch.nn.functional as F
    from onnx import numpy_helper

    torch.set_num_threads(2)
    torch.manual_seed(0)
    count, sparsity, allocation, chunk, _ = settings(data)
    images, labels = load(data, count)
    images = torch.from_numpy(images)
    graph = onnx.load(model_path).graph
    dense = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    sparse = {name: tensor.clone() for name, tensor in dense.items()}
    prunable = [n.input[1] for n in graph.node if n.op_type in ("Conv", "Gemm")]
    threshold = lambda scores: scores.kthvalue(round(sparsity * scores.numel())).values
    if allocation == "global":
        limit = threshold(torch.cat([dense[w].abs().flatten() for w in prunable]))
        masks = {w: dense[w].abs() > limit for w in prunable}
    else:
        masks = {w: dense[w].abs() > threshold(dense[w].abs().flatten()) for w in prunable}
    for w in prunable:
        sparse[w] *= masks[w]

    attributes = lambda node: {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}

    def compute(node, params, values):
        a = attributes(node)
        get = lambda i: values[node.input[i]] if node.input[i] in values else params[node.input[i]]
        chunked = lambda f: torch.cat([f(part) for part in values[node.input[0]].split(chunk)])
        match node.op_type:
            case "Conv":
                bias = get(2) if len(node.input) > 2 else None
                return chunked(lambda x: F.conv2d(x, get(1), bias, a.get("strides", [1, 1]), a.get("pads", [0] * 4)[:2]))
            case "BatchNormalization":
                return chunked(lambda x: F.batch_norm(x, get(3), get(4), get(1), get(2), eps=a.get("epsilon", 1e-5)))
            case "Relu":
                return get(0).relu()
            case "Add":
                return get(0) + get(1)
            case "Gemm":
                return get(0) @ get(1).T + get(2)
            case "MaxPool":
                return F.max_pool2d(get(0), a["kernel_shape"], a["strides"], a.get("pads", [0] * 4)[:2])
            case "Identity":
                return get(0)
            case "GlobalAveragePool":
                return get(0).mean((2, 3), keepdim=True)
            case "ReduceMean":
                return get(0).mean(tuple(a["axes"]), keepdim=bool(a.get("keepdims", 1)))
            case "AveragePool":
                return F.avg_pool2d(get(0), a["kernel_shape"], a.get("strides"))
            case "Flatten":
                return get(0).flatten(1)
            case "Reshape":
                return get(0).reshape([int(v) for v in get(1)])
            case "Shape":
                return torch.tensor(get(0).shape)
            case "Gather":
                return get(0)[get(1)]
            case "Mul":
                return get(0) * get(1)
            case "Sub":
                return get(0) - get(1)
            case "Unsqueeze":
                return get(0)[(None,) * len(get(1))]
            case "Transpose":
                return get(0).permute(a["perm"]) if "perm" in a else get(0).T
            case "Concat":
                return torch.cat([torch.atleast_1d(get(i)) for i in range(len(node.input))], a["axis"])
            case "ConstantOfShape":
                return torch.zeros([int(v) for v in get(0)], dtype=torch.int64)
            case "Cast":
                return get(0).long()
            case "Slice":
                index = [slice(None)] * get(0).dim()
                flips = []
                steps = get(4).tolist() if len(node.input) > 4 else [1] * len(get(1))
                for s, e, axis, step in zip(get(1).tolist(), get(2).tolist(), get(3).tolist(), steps):
                    if step < 0:
                        flips.append(axis)
                    else:
                        index[axis] = slice(s, min(e, 1 << 30), step)
                return get(0)[tuple(index)].flip(flips)
            case "Pad":
                pads = [int(v) for v in get(1)]
                half = len(pads) // 2
                return F.pad(get(0), [v for axis in reversed(range(half)) for v in (pads[axis], pads[half + axis])])
            case "Constant":
                return torch.from_numpy(numpy_helper.to_array(a["value"]).copy())
            case other:
                raise NotImplementedError(other)

    def windows(x, weight, a, pick):
        """The windows of the picked positions, [K, images * positions]."""
        pad, stride, (height, width) = a.get("pads", [0] * 4)[0], a.get("strides", [1, 1])[0], weight.shape[2:]
        x = F.pad(x, [pad] * 4)
        across = (x.shape[3] - width) // stride + 1
        start = pick // across * stride * x.shape[3] + pick % across * stride
        flat, channels = x.flatten(2), x.shape[1]
        taps = [flat.gather(2, (start + dy * x.shape[3] + dx)[:, None].expand(-1, channels, -1)) for dy in range(height) for dx in range(width)]
        return torch.stack(taps, 2).permute(1, 2, 0, 3).reshape(channels * height * width, -1)

    def fit(node, x, target, next_norm):
        a, weight = attributes(node), sparse[node.input[1]]
        if node.op_type == "Conv":
            positions = target.shape[2] * target.shape[3]
            pick = torch.rand(len(x), positions).topk(min(positions, -(-ROWS // len(x)))).indices
            rows = windows(x, weight, a, pick)
            wanted = target.flatten(2).gather(2, pick[:, None].expand(-1, target.shape[1], -1)).transpose(0, 1).flatten(1)
        else:
            rows, wanted = x.T.contiguous(), target.T.contiguous()
        n = rows.shape[1]
        gram, cross = (rows @ rows.T).double() / n, (rows @ wanted.T).double() / n
        mean_x, mean_t = rows.double().mean(1), wanted.double().mean(1)
        gram, cross = gram - mean_x[:, None] * mean_x, cross - mean_x[:, None] * mean_t
        mask, old = masks[node.input[1]].flatten(1), weight.flatten(1).double()
        new = torch.zeros_like(old)
        ridge = DAMP * gram.diagonal().mean() / len(x)
        sizes = mask.sum(1)
        order = sizes.argsort()
        while len(order):
            # From the longest on; what a shorter row lacks is filled with the unit matrix.
            longest = int(sizes[order[-1]])
            together = max(1, BATCH_BYTES // max(1, 8 * longest * longest))
            batch, order = order[-together:], order[:-together]
            if longest == 0:
                continue
            kept = mask[batch].to(torch.uint8).sort(1, descending=True, stable=True).indices[:, :longest]
            there = torch.arange(longest) < sizes[batch][:, None]
            systems = gram[kept[:, :, None], kept[:, None, :]]
            systems *= there[:, :, None] & there[:, None, :]
            before = old[batch].gather(1, kept) * there
            right = cross.T[batch].gather(1, kept) * there - (systems @ before[:, :, None])[:, :, 0]
            systems.diagonal(dim1=1, dim2=2).add_(torch.where(there, ridge * sizes[batch][:, None], 1.0))
            change = torch.cholesky_solve(right[:, :, None], torch.linalg.cholesky(systems))[:, :, 0]
            new[batch] = new[batch].scatter_add(1, kept, (before + change) * there)
        intercepts = mean_t - new @ mean_x
        weight.copy_(new.reshape(weight.shape))
        if next_norm is None:
            sparse[node.input[2]].copy_(intercepts)
        else:
            sparse[next_norm.input[3]].copy_(dense[next_norm.input[3]].double() - intercepts)

    begin = time.perf_counter()
    ours, theirs = {graph.input[0].name: images}, {graph.input[0].name: images}
    last_use = {name: i for i, node in enumerate(graph.node) for name in node.input}
    with torch.no_grad():
        for i, node in enumerate(graph.node):
            wanted = compute(node, dense, theirs)
            theirs[node.output[0]] = wanted
            if node.op_type in ("Conv", "Gemm"):
                norm = next((n for n in graph.node if n.input and n.input[0] == node.output[0] and n.op_type == "BatchNormalization"), None)
                fit(node, ours[node.input[0]], wanted, norm)
            ours[node.output[0]] = compute(node, sparse, ours)
            for name in node.input:
                if last_use[name] == i:
                    ours.pop(name, None), theirs.pop(name, None)
    wanted = list(theirs.values())[-1].argmax(1).numpy() if labels is None else labels
    accuracy = (list(ours.values())[-1].argmax(1).numpy() == wanted).mean()
    print(f"{time.perf_counter() - begin:.2f} {time.perf_counter() - start:.2f} {accuracy:.4f}")


def load(data, count):
    """Images as resprout prepares them, and labels or nothing."""
    import numpy as np

    cifar = pathlib.Path(data) / "data_batch_1.bin"
    scaled = lambda images, mean, std: (images - np.array(mean, np.float32)[:, None, None]) / np.array(std, np.float32)[:, None, None]
    if cifar.exists():
        records = np.fromfile(cifar, np.uint8).reshape(-1, 3073)[:count]
        images = records[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) / 255
        return scaled(images, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)), records[:, 0]
    from PIL import Image

    def crop(path):
        image = Image.open(path).convert("RGB")
        left, top = (image.width - 224) // 2, (image.height - 224) // 2
        return np.asarray(image.crop((left, top, left + 224, top + 224)), np.float32).transpose(2, 0, 1) / 255

    images = np.stack([crop(path) for path in sorted(pathlib.Path(data).glob("*.jpg"))[:count]])
    return scaled(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), None


def resprout_side(model, data, out):
    count, sparsity, allocation, _, images = settings(data)
    command = [RESPROUT, "--threads", "2", "--quiet", "prune", model, "-o", out, "-s", str(sparsity), "--allocation", allocation, "--repair",
               REPAIR, "--calibration", *images, "--calibration-images", str(count), "--no-evaluation"]
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def median(values):
    return sorted(values)[len(values) // 2]


def main(model, data, repeats=5):
    whole, inner, mine = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(int(repeats)):
            mine.append(resprout_side(model, data, pathlib.Path(folder) / "out.onnx"))
            begin = time.perf_counter()
            run = subprocess.run([sys.executable, __file__, "--torch", model, data], check=True, capture_output=True, text=True)
            whole.append(time.perf_counter() - begin)
            inner.append(float(run.stdout.split()[0]))
        print(f"resprout {median(mine):.2f} s, PyTorch {median(whole):.2f} s, without start-up {median(inner):.2f} s "
              f"(its result agrees with labels, or with the dense network, on {run.stdout.split()[2]} of the images)")
        print(f"ratio {median(whole) / median(mine):.2f}, without start-up {median(inner) / median(mine):.2f}")


def large():
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    rng = np.random.default_rng(0)
    tensors = {"w": rng.standard_normal((512, 512, 3, 3)) * 0.02, "g": np.ones(512), "b": np.zeros(512), "m": np.zeros(512), "v": np.ones(512)}
    value = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 512, 7, 7])
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4), helper.make_node("BatchNormalization", ["c", *"gbmv"], ["n"]),
             helper.make_node("Relu", ["n"], ["y"])]
    graph = helper.make_graph(nodes, "large", [value("x")], [value("y")],
                              [numpy_helper.from_array(t.astype(np.float32), name) for name, t in tensors.items()])
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "large.onnx")
        np.save(folder / "x.npy", rng.standard_normal((1024, 512, 7, 7)).astype(np.float32))
        command = ["/usr/bin/time", "-v", RESPROUT, "prune", folder / "large.onnx", "-o", folder / "out.onnx", "-s", "0.9", "--preset", "raw",
                   "--repair", "least-squares", "--calibration", folder / "x.npy", "--no-evaluation"]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        print([line.strip() for line in run.stderr.splitlines() if "Elapsed" in line or "Maximum resident" in line])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--torch", model, data]:
            torch_side(model, data)
        case ["--large"]:
            large()
        case [model, data, *repeats]:
            main(model, data, *repeats)
        case _:
            sys.exit(__doc__)
