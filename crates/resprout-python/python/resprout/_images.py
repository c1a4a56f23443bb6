"""Calibration images of any kind as one array."""
import numpy as np


def as_images(given, most):
    """``[N, C, H, W]`` of ``float32``, at most ``most`` images; ``None`` for none."""
    if given is None:
        return None
    if isinstance(given, np.ndarray):
        return _checked(given)[:most]
    if type(given).__module__.split(".")[0] == "torch" and hasattr(given, "detach"):
        return _checked(given.detach().cpu().numpy())[:most]
    if not hasattr(given, "__iter__"):
        raise ValueError(f"calibration: an array, an iterable of batches or a folder is needed, not {type(given).__name__}")
    batches, count = [], 0
    for item in given:
        # A batch of a data loader: the images come first.
        item = item[0] if isinstance(item, (tuple, list)) else item
        item = item.detach().cpu().numpy() if hasattr(item, "detach") else np.asarray(item)
        item = item[None] if item.ndim == 3 else item
        batches.append(_checked(item))
        if batches[0].shape[1:] != batches[-1].shape[1:]:
            raise ValueError(f"calibration: images of {list(batches[-1].shape[1:])} after {list(batches[0].shape[1:])}")
        count += len(item)
        if count >= most:
            break
    if not batches:
        raise ValueError("calibration: the iterable has no images")
    return np.concatenate(batches)[:most]


def _checked(array):
    if array.ndim != 4:
        raise ValueError(f"calibration: an array of shape {list(array.shape)}; [N, C, H, W] is needed")
    if array.dtype != np.float32:
        raise ValueError(f"calibration: an array of {array.dtype}; float32, preprocessed, is needed")
    if array.shape[1] > 4 and array.shape[3] <= 4:
        raise ValueError(f"calibration: shape {list(array.shape)} looks like [N, H, W, C]; [N, C, H, W] is needed")
    return np.ascontiguousarray(array)
