"""Networks of any kind as a ``Model``."""
import io
import os

from . import _native


def as_model(given, images):
    """``images`` are an example of the input, for modules that are exported."""
    if isinstance(given, _native.Model):
        return given
    if isinstance(given, (str, os.PathLike)):
        return _native.Model.read(os.fspath(given))
    if isinstance(given, (bytes, bytearray, memoryview)):
        return _native.Model.from_bytes(bytes(given))
    if hasattr(given, "SerializeToString"):
        return _native.Model.from_bytes(given.SerializeToString())
    if is_module(given):
        return _native.Model.from_bytes(exported(given, images))
    raise ValueError(f"model: a path, bytes, an onnx.ModelProto or a torch.nn.Module is needed, not {type(given).__name__}")


def is_module(given):
    """Whether it is a ``torch.nn.Module``; torch is not imported to find out."""
    return hasattr(given, "state_dict") and hasattr(given, "forward")


def input_channels(module):
    """The channels of a module's images, by its first convolution; 3 without one."""
    weights = (parameter.shape for parameter in module.parameters() if parameter.ndim == 4)
    return next((shape[1] for shape in weights), 3)


def exported(module, images):
    """The bytes of a module as ONNX, with BatchNormalization kept as nodes and the parameters' own names."""
    import torch

    if images is None:
        raise ValueError("model: a torch.nn.Module is exported with an example: give calibration images as an array")
    file = io.BytesIO()
    was_training = module.training
    module.eval()
    try:
        torch.onnx.export(
            module, (torch.from_numpy(images[:1]),), file, input_names=["input"], output_names=["output"],
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}}, do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE, dynamo=False,
        )
    finally:
        module.train(was_training)
    return file.getvalue()
