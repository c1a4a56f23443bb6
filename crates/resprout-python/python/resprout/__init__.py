"""Make trained vision networks sparse and keep them alive: prune, repair without labels, run.

    import resprout as rs

    result = rs.prune("model.onnx", sparsity=0.9, repair="least-squares", calibration=images)
    result.save("sparse.onnx")
    session = rs.Session(result.model, threads=2)
    scores = session(images)

Images are arrays ``[N, C, H, W]`` of ``float32``, preprocessed as the network was trained.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from . import _native
from ._images import as_images
from ._models import as_model, input_channels, is_module

__version__ = _native.__version__
__all__ = ["Model", "Result", "Session", "apply", "compress", "prune", "read", "sweep", "train"]

Model = _native.Model


class Result:
    """A pruned and repaired network.

    Attributes:
        model: the network, a ``Model``.
        dense: the network before.
        report: ``requested``, ``of_prunable``, ``prunable`` and ``kept`` weights, ``steps``, and a row for each of ``layers``.
        masks: boolean arrays by parameter; ``True`` where a weight is kept.
    """

    def __init__(self, dense, model, report):
        self.dense, self.model, self.report = dense, model, report

    @property
    def masks(self):
        return self.model.masks()

    def save(self, path):
        """Writes an ONNX file, whole or not at all."""
        self.model.save(os.fspath(path))

    def __repr__(self):
        return f"<resprout.Result: {self.report['of_prunable']:.1%} of {self.report['prunable']} weights pruned>"


def read(model):
    """A ``Model`` of an ONNX file, its bytes, an ``onnx.ModelProto``, or a ``Model`` itself."""
    return as_model(model, None)


def prune(
    model,
    sparsity=None,
    *,
    macs=None,
    pattern=None,
    criterion=None,
    allocation=None,
    repair="none",
    steps=1,
    seed=0,
    ignore=(),
    calibration=None,
    calibration_images=256,
    preset="imagenet",
    score=None,
    progress=None,
):
    """Prunes a network and repairs it without labels.

    Args:
        model: the path of an ONNX file, its bytes, an ``onnx.ModelProto``, a ``Model``, or a ``torch.nn.Module``
            (exported with the shape of the calibration images).
        sparsity: the share of the prunable weights to remove, in [0, 1).
        macs: in its place, the share of the multiply-accumulates that whole channels keep.
        pattern, criterion, allocation, repair: rows of the tables, as ``resprout list`` shows them, with options.
        steps: steps of pruning and repair.
        calibration: an array ``[N, C, H, W]`` of ``float32``; an iterable or ``DataLoader`` of such batches (labels are
            ignored); or the path of a folder, which is preprocessed by ``preset``.
        calibration_images: the most images that are used.
        score: ``score(name, weight)`` returns an array of the weight's shape: a criterion of your own.
            ``score(name, weight, inputs)`` is given the root mean square of the input that each weight multiplies, too,
            over the calibration images.
        progress: ``True`` for bars by tqdm; or ``progress(stage, done, total)``, whose exceptions stop the work.

    Raises:
        ValueError: an argument, a file or an array is wrong; the message names it.
        KeyboardInterrupt: between two layers.
    """
    if (sparsity is None) == (macs is None):
        raise ValueError("prune: one of sparsity and macs is needed")
    if score is not None and criterion is not None:
        raise ValueError("prune: score and criterion: only one of them")
    if score is not None and not callable(score):
        raise ValueError("prune: score: a callable is needed")
    dense, images = _model_and_images(model, calibration, calibration_images, preset)
    repaired, report = _native.prune(
        dense, images, 0.0 if sparsity is None else float(sparsity), macs, pattern, criterion, allocation,
        None if repair == "none" else repair, steps, seed, list(ignore), score, _progress(progress),
    )
    return Result(dense, repaired, json.loads(report))


def _progress(progress):
    """What is called with stage, done and total."""
    if progress is None or callable(progress):
        return progress
    if progress is not True:
        raise ValueError("prune: progress: True or a callable is needed")
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ValueError("prune: progress=True shows bars by tqdm, which is not installed; give a callable") from error
    bars = {}

    def show(stage, done, total):
        if stage not in bars:
            bars[stage] = tqdm(total=total, desc=stage)
        bars[stage].update(done - bars[stage].n)
        if done == total:
            bars.pop(stage).close()

    return show


def _model_and_images(model, calibration, count, preset):
    """A module is exported with the calibration images as its example; other models tell how many channels these have."""
    if not isinstance(calibration, (str, os.PathLike)):
        images = as_images(calibration, count)
        return as_model(model, images), images
    dense = None if is_module(model) else as_model(model, None)
    channels = input_channels(model) if dense is None else (dense.image or [3])[0]
    images = _native.load_images(os.fspath(calibration), channels, preset, count)
    return dense or as_model(model, images), images


class Session:
    """A network compiled for images of one size, with zero weights left out.

    Args:
        model: as of ``prune``, or a ``Result``.
        image: ``(C, H, W)``, where the file leaves it open.
        threads: threads that work on a batch, the calling one among them.
        batch: images of a typical batch; any other number runs too.
        tune: seconds for measuring which plan is the fastest; 0 for one that is chosen without.
        isa: ``avx512``, ``avx2`` or ``portable`` in place of the best one.
    """

    def __init__(self, model, image=None, *, threads=1, batch=1, tune=0.0, isa=None, pin=False):
        model = as_model(model.model if isinstance(model, Result) else model, None)
        image = image or model.image
        if image is None:
            raise ValueError("Session: the file leaves the images' size open: give image=(C, H, W)")
        self._session = _native.Session(model, tuple(image), threads, batch, tune, isa, pin)

    @property
    def image(self):
        """Channels, height and width."""
        return tuple(self._session.image)

    def run(self, images):
        """All outputs of ``images``, an array ``[N, C, H, W]`` of ``float32`` in C order. It is not copied."""
        if not isinstance(images, np.ndarray):
            raise ValueError(f"Session: an array is needed, not {type(images).__name__}")
        if images.dtype != np.float32 or images.ndim != 4:
            raise ValueError(f"Session: images of {images.dtype} {list(images.shape)}; float32 [N, C, H, W] is needed")
        return self._session.run(images)

    def __call__(self, images):
        """The outputs: one array, or a list where the network has several."""
        outputs = self.run(images)
        return outputs[0] if len(outputs) == 1 else outputs


def apply(module, result):
    """Writes a result's weights back into the ``torch.nn.Module`` that was pruned, by the exporter's names.

    Returns the masks by the module's own parameter names. Parameters that the export has renamed or merged (a
    BatchNormalization that was folded into a convolution, say) are an error that names them.
    """
    import torch

    state = dict(module.named_parameters())
    buffers = dict(module.named_buffers())
    names = result.model.parameters()
    missing = [name for name in state if name not in names]
    if missing:
        raise ValueError(
            f"apply: the exported network has no parameter {missing[0]!r} (and {len(missing) - 1} more): export it with "
            "its BatchNormalization kept, torch.onnx.export(..., training=TrainingMode.PRESERVE, do_constant_folding=False)"
        )
    with torch.no_grad():
        for name in names:
            target = state.get(name, buffers.get(name))
            if target is not None:
                value = torch.from_numpy(np.array(result.model.parameter(name)))
                if value.shape != target.shape:
                    raise ValueError(f"apply: {name!r} has shape {list(target.shape)}, the network {list(value.shape)}")
                target.copy_(value)
    return {name: torch.from_numpy(np.array(mask)) for name, mask in result.masks.items() if name in state}


class Study:
    """What a sweep has measured: ``recipe``, ``models`` and the rest of its JSON."""

    def __init__(self, data, folder):
        self.data, self.folder = data, folder

    def to_pandas(self):
        """One row per model, method and sparsity."""
        import pandas

        rows = []
        for model in self.data["models"]:
            for curve in model["curves"]:
                for point in curve["points"]:
                    plain = {key: value for key, value in point.items() if not isinstance(value, (dict, list))}
                    rows.append({"model": model["name"], "metric": model["metric"], **curve["configuration"], **plain})
        return pandas.DataFrame(rows)


class Compressed:
    """What a search has found: ``model``, ``report`` (as ``report.json``), and ``folder`` with its page."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.report = json.loads((self.folder / "report.json").read_text())
        self.model = read(self.folder / "model.onnx")

    @property
    def kept(self):
        """Whether the network keeps the wish, on images that nothing was chosen by too."""
        return self.report["kept"]

    def __repr__(self):
        row = self.report["rows"][self.report["nearest"]]
        verdict = "keeps the wish" if self.kept else "no network keeps the wish"
        return f"<resprout.Compressed: {row['cost']['faster']:.2f} times as fast, {self.report['check']['points']:.2f} points lost; {verdict}>"


def compress(
    model,
    output,
    *,
    calibration,
    faster=None,
    file_size=None,
    macs=None,
    parameters=None,
    max_loss=None,
    budget=20,
    batch=1,
    threads=None,
    pattern=("unstructured", "channel", "both"),
    calibration_images=1536,
    data=None,
    labels="auto",
    preset=None,
    ignore=(),
):
    """Finds the network that keeps a wish and loses least: see ``resprout compress --help``.

    Args:
        model: as of ``prune``.
        output: the folder for the network, the report and its page; an interrupted search goes on from it.
        calibration: the path of unlabelled images, or an array ``[N, C, H, W]`` of ``float32``, preprocessed.
        faster, file_size, macs, parameters, max_loss: the wish; ``file_size`` in bytes, ``max_loss`` in points.
        budget: minutes that the search may take, about.

    Returns:
        A ``Compressed``, also where no network keeps the wish: see ``kept``.
    """
    folder = pathlib.Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    is_path = isinstance(calibration, (str, os.PathLike))
    source = folder / "dense.onnx"
    # Of a folder one image is enough here: the example that a module is exported with.
    dense, images = _model_and_images(model, calibration, 1 if is_path else calibration_images, preset or "imagenet")
    dense.save(os.fspath(source))
    if not is_path:
        np.save(folder / "calibration.npy", images)
        calibration, preset = folder / "calibration.npy", "raw"
    wish = {
        "--faster": faster, "--file-size": file_size, "--macs": macs, "--parameters": parameters, "--max-loss": max_loss,
        "--threads": threads, "--data": data, "--preset": preset,
    }
    given = [word for name, value in wish.items() if value is not None for word in (name, value)]
    ignored = [word for name in ignore for word in ("--ignore", name)]
    try:
        _command([
            "compress", source, "--output", folder, "--calibration", calibration, "--calibration-images", calibration_images,
            "--budget", budget, "--batch", batch, "--pattern", ",".join([pattern] if isinstance(pattern, str) else pattern),
            "--labels", labels, "--json", folder / "report.json", "--quiet", *given, *ignored,
        ])
    except ValueError as error:
        if not str(error).startswith("no network keeps the wish"):
            raise
    return Compressed(folder)


def _command(arguments, cwd=None):
    """Runs the command in a process of its own: it has threads, signals and progress bars of its own."""
    done = subprocess.run([sys.executable, "-m", "resprout", *map(str, arguments)], cwd=cwd, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise ValueError(_message(done.stderr, done.returncode))


def _message(text, code):
    """The command's own message."""
    lines = [line for line in text.splitlines() if line.startswith("error: ")]
    return lines[0].removeprefix("error: ") if lines else f"exit code {code}"


def sweep(recipe=None, output=None, *, jobs=1):
    """Runs a sweep: ``recipe`` is a dictionary, a path, or ``None`` for the embedded one; ``output`` is its folder.

    Among the ``criteria`` of a dictionary may be callables ``score(name, weight)``, without inputs, as of ``prune``, if it has a single model.
    Their scores are computed once, of the dense weights, and kept in the folder.
    """
    folder = pathlib.Path(output or tempfile.mkdtemp(prefix="resprout-"))
    arguments = ["sweep"]
    if isinstance(recipe, dict):
        folder.mkdir(parents=True, exist_ok=True)
        recipe = {**recipe, "criteria": _score_files(recipe, folder)} if "criteria" in recipe else recipe
        path = folder / "given.yaml"
        path.write_text(json.dumps(recipe))
        arguments.append(path)
    elif recipe is not None:
        arguments.append(recipe)
    _command([*arguments, "--output", folder, "--jobs", jobs, "--quiet", "--json", folder / "study.json"])
    return Study(json.loads((folder / "study.json").read_text()), folder)


def _score_files(recipe, folder):
    """The criteria of a recipe, with a file of scores in place of each callable."""
    criteria = list(recipe["criteria"])
    for index, criterion in enumerate(criteria):
        if callable(criterion):
            if len(recipe.get("models", [])) != 1:
                raise ValueError("sweep: a callable criterion scores the weights of one model: give a single one")
            entry = recipe["models"][0]
            model = read(entry["path"] if isinstance(entry, dict) else entry)
            file = (folder / f"{getattr(criterion, '__name__', 'criterion')}-{index}.safetensors").resolve()
            _native.write_scores(model, criterion, os.fspath(file), list(recipe.get("ignore", [])))
            criteria[index] = f"scores={file}"
    return criteria


def train(recipe, output, *, on_epoch=None, resume=False):
    """Trains by a recipe (a dictionary or a path) into the folder ``output``; returns the run's report.

    ``on_epoch(row)`` is called with each epoch's row of the journal, once it is there.
    """
    folder = pathlib.Path(output)
    with tempfile.TemporaryDirectory(prefix="resprout-") as given:
        path = recipe
        if isinstance(recipe, dict):
            path = pathlib.Path(given) / "recipe.yaml"
            path.write_text(json.dumps(recipe))
        arguments = ["train", path, "--output", folder, "--quiet", *(["--resume"] if resume else [])]
        process = subprocess.Popen(
            [sys.executable, "-m", "resprout", *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            _follow(process, folder / "journal.jsonl", on_epoch)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if process.returncode != 0:
        raise ValueError(_message(process.stderr.read(), process.returncode))
    return json.loads((folder / "report.json").read_text())


def _follow(process, journal, on_epoch):
    seen = 0
    while True:
        try:
            process.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            pass
        if on_epoch is not None and journal.exists():
            rows = [line for line in journal.read_text().splitlines() if line.endswith("}")]
            for line in rows[seen:]:
                on_epoch(json.loads(line))
            seen = max(seen, len(rows))
        if process.returncode is not None:
            return
