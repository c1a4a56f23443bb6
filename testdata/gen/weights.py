"""Files of weights as PyTorch and others write them, all of one small network.

    python testdata/gen/weights.py

Writes testdata/golden/weights/: network.onnx is the network with other numbers; plain.safetensors holds what every other file must be read as. `*-16.*` files hold
its numbers rounded to 16 bits, pruned.* a mask, norm.* a convolution under weight_norm. The rest must be refused.
"""
import pathlib
import zipfile
from collections import OrderedDict

import onnx
import torch
from onnx import helper, numpy_helper
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm

FOLDER = pathlib.Path(__file__).parents[1] / "golden" / "weights"


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


def network():
    torch.manual_seed(0)
    net = Network().train()
    for _ in range(3):
        net(torch.randn(8, 2, 6, 6))
    return net.eval()


def graph(state):
    node = lambda op, inputs, output, **attributes: helper.make_node(op, inputs, [output], name=output, **attributes)
    norm = [f"bn.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    nodes = [
        node("Conv", ["x", "conv.weight", "conv.bias"], "conv", pads=[1] * 4),
        node("BatchNormalization", ["conv", *norm], "bn"),
        node("Relu", ["bn"], "relu"),
        node("GlobalAveragePool", ["relu"], "pool"),
        node("Flatten", ["pool"], "flat"),
        node("Gemm", ["flat", "fc.weight", "fc.bias"], "fc", transB=1),
    ]
    # Other numbers than any file's: what is read must come from the file.
    parameters = [numpy_helper.from_array(value.numpy() * 0 + 0.5, name) for name, value in state.items() if value.is_floating_point()]
    value = lambda name, shape: helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
    made = helper.make_graph(nodes, "network", [value("x", ["N", 2, 6, 6])], [value("fc", ["N", 3])], parameters)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, FOLDER / "network.onnx")


def save(value, name, **options):
    torch.save(value, FOLDER / name, **options)


def layouts(state):
    save(state, "zip.pth")
    # The archive's first entry is as long as the 64-bit end records, and a reader may take the second for the first.
    save(state, "twenty-one-characters.pth")
    save(state, "legacy.pth", _use_new_zipfile_serialization=False)
    save(state, "protocol-4.pth", pickle_protocol=4)
    torch.serialization.set_crc32_options(False)
    save(state, "no-crc.pth")
    torch.serialization.set_crc32_options(True)
    torch.utils.serialization.config.save.storage_alignment = 256
    save(state, "aligned.pth")
    torch.utils.serialization.config.save.storage_alignment = 64
    # As a file manager packs it again: other order, deflated, with folders.
    with zipfile.ZipFile(FOLDER / "zip.pth") as old, zipfile.ZipFile(FOLDER / "deflated.pth", "w", zipfile.ZIP_DEFLATED) as new:
        new.mkdir("zip")
        for name in sorted(old.namelist(), reverse=True):
            new.writestr(name, old.read(name))


def views(state):
    """The same numbers as parts, transposes and repetitions of other storages."""
    conv, fc = state["conv.weight"], state["fc.weight"]
    storage = torch.zeros(2 * conv.numel() + 7)
    inside = storage[7:].view(*conv.shape[:3], -1)[..., ::2]
    inside.copy_(conv)
    shared = torch.cat([state["bn.weight"], state["bn.bias"]])
    changed = dict(state)
    changed["conv.weight"] = inside
    changed["fc.weight"] = fc.t().contiguous().t()
    changed["bn.weight"], changed["bn.bias"] = shared[:4], shared[4:]
    changed["tied.weight"] = changed["fc.weight"]
    for name, legacy in [("views.pth", False), ("views-legacy.pth", True)]:
        save(changed, name, _use_new_zipfile_serialization=not legacy)


def wrapped(net, state):
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.randn(4, 2, 6, 6)).sum().backward()
    optimizer.step()
    average = torch.optim.swa_utils.AveragedModel(net)
    average.load_state_dict({"n_averaged": torch.tensor(3)} | {f"module.{name}": value for name, value in state.items()})
    parallel = OrderedDict((f"module._orig_mod.{name}", value) for name, value in state.items())
    ema = {name: value + 1 if value.is_floating_point() else value for name, value in state.items()}
    save({"epoch": 3, "args": {"lr": 0.1}, "state_dict": parallel, "state_dict_ema": ema, "optimizer": optimizer.state_dict()}, "checkpoint.pth")
    save(average.state_dict(), "averaged.pth")
    lightning = {f"model.{name}": value for name, value in state.items()}
    save({"state_dict": lightning, "hyper_parameters": {}, "optimizer_states": [optimizer.state_dict()]}, "lightning.ckpt")
    save_file({f"module.{name}": value.contiguous() for name, value in state.items()}, FOLDER / "module.safetensors")
    save({name: nn.Parameter(value) if value.is_floating_point() else value for name, value in state.items()}, "parameters.pth")
    save({name: value.double() if value.is_floating_point() else value for name, value in state.items()}, "double.pth")


def rounded(state):
    for name, kind in [("half", torch.float16), ("bfloat", torch.bfloat16)]:
        small = {key: value.to(kind) if value.is_floating_point() else value for key, value in state.items()}
        save(small, f"{name}-16.pth")
        save_file(small, FOLDER / f"{name}-16.safetensors")
        save_file({key: value.float() for key, value in small.items() if value.is_floating_point()}, FOLDER / f"{name}-16.expected.safetensors")


def computed(state):
    net = network()
    prune.l1_unstructured(net.conv, "weight", 0.5)
    save(net.state_dict(), "pruned.pth")
    save_file({key: value.contiguous() for key, value in net.state_dict().items()}, FOLDER / "pruned.safetensors")
    prune.remove(net.conv, "weight")
    save_file({key: value for key, value in net.state_dict().items() if value.is_floating_point()}, FOLDER / "pruned.expected.safetensors")
    net = network()
    parametrizations.weight_norm(net.conv)
    save(net.state_dict(), "norm.pth")
    net = network()
    torch.nn.utils.weight_norm(net.conv, dim=1)
    save(net.state_dict(), "norm-old.pth")


def script(net):
    """A TorchScript program, without what its debugger knows of this machine."""
    torch.jit.script(net).save(FOLDER / "whole.pth")
    with zipfile.ZipFile(FOLDER / "whole.pth") as old, zipfile.ZipFile(FOLDER / "script.pth", "w") as new:
        for name in old.namelist():
            if not name.endswith(".debug_pkl"):
                new.writestr(name, old.read(name))
    (FOLDER / "whole.pth").unlink()


def refused(net, state):
    save(net, "module.pth")
    save({"model": net, "epoch": 1}, "module-inside.pth")
    script(net)
    save([value for value in state.values()], "list.pth")
    save({name: value for name, value in state.items() if not name.startswith("fc")}, "missing.pth")
    save({"backbone." + name: value for name, value in state.items()}, "names.pth")
    quantized = torch.quantize_per_tensor(state["fc.weight"], 0.1, 0, torch.qint8)
    save({**state, "fc.weight": quantized}, "quantized.pth")
    spectral = network()
    spectral_norm(spectral.conv)
    save(spectral.state_dict(), "spectral.pth")
    spectral = network()
    parametrizations.spectral_norm(spectral.conv)
    save(spectral.state_dict(), "spectral-new.pth")
    save({**state, "fc.bias": torch.empty(0)}, "empty.pth")


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    net = network()
    state = OrderedDict((name, value.clone()) for name, value in net.state_dict().items())
    save_file({name: value for name, value in state.items() if value.is_floating_point()}, FOLDER / "plain.safetensors")
    graph(state)
    save_file(dict(state), FOLDER / "counters.safetensors")
    layouts(state)
    views(state)
    wrapped(network(), state)
    rounded(state)
    computed(state)
    refused(net, state)
    for path in FOLDER.iterdir():
        path.chmod(0o644)


if __name__ == "__main__":
    main()
