"""The package on the network that the command carries."""
import gzip
import importlib.util
import json
import pathlib
import subprocess
import sys
import threading

import numpy as np
import pytest

import resprout as rs

ASSETS = pathlib.Path(__file__).parents[2] / "resprout-cli/assets"
MODEL = ASSETS / "digits.onnx"


@pytest.fixture(scope="module")
def images():
    data = gzip.decompress((ASSETS / "digits-images-idx3-ubyte.gz").read_bytes())
    pixels = np.frombuffer(data, np.uint8, offset=16).reshape(-1, 1, 8, 8)
    return np.ascontiguousarray(pixels, dtype=np.float32)


@pytest.fixture(scope="module")
def result(images):
    return rs.prune(MODEL, sparsity=0.9, repair="least-squares", calibration=images[:256])


def test_a_result_has_the_sparsity_and_the_masks(result):
    assert result.report["kept"] == 7707  # a tenth of 77,072
    assert sum(mask.sum() for mask in result.masks.values()) == 7707
    for name, mask in result.masks.items():
        weight = result.model.parameter(name)
        assert weight.shape == mask.shape and not weight[~mask].any()


def test_it_is_what_the_command_writes(result, tmp_path):
    command = [sys.executable, "-m", "resprout", "prune", MODEL, "--sparsity", "0.9", "--repair", "least-squares"]
    command += ["--calibration", ASSETS / "digits-images-idx3-ubyte.gz", "--preset", "raw", "--calibration-images", "256"]
    subprocess.run([*map(str, command), "-o", str(tmp_path / "sparse.onnx"), "--quiet"], check=True, stdout=subprocess.DEVNULL)
    written = rs.read(tmp_path / "sparse.onnx")
    for name in written.parameters():
        np.testing.assert_array_equal(written.parameter(name), result.model.parameter(name))


def test_saving_and_reading_gives_the_same(result, tmp_path):
    result.save(tmp_path / "sparse.onnx")
    assert rs.read(tmp_path / "sparse.onnx").to_bytes() == result.model.to_bytes()
    assert rs.read(result.model.to_bytes()).sparsity == result.model.sparsity == pytest.approx(0.9, abs=1e-4)


def test_a_session_gives_the_same_bits_on_any_number_of_threads(result, images):
    one, two = (rs.Session(result, threads=threads)(images[:37]) for threads in (1, 2))
    assert one.shape == (37, 10) and one.dtype == np.float32
    np.testing.assert_array_equal(one, two)


def test_a_session_does_not_copy_its_input(result, images):
    session = rs.Session(result)
    given = images[:4].copy()
    before = session(given)
    # The same memory with other numbers: nothing was kept of it.
    given[:] = images[4:8]
    np.testing.assert_array_equal(session(given), session(images[4:8]))
    assert not np.array_equal(before, session(given))
    with pytest.raises(ValueError, match="C order"):
        session(np.asfortranarray(np.repeat(given, 2, axis=0)))


def test_threads_can_share_a_session(result, images):
    session = rs.Session(result)
    wanted = session(images[:8])
    found = []
    threads = [threading.Thread(target=lambda: found.append(session(images[:8]))) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert len(found) == 4 and all(np.array_equal(wanted, other) for other in found)


def test_a_criterion_in_python_is_the_built_in_one():
    own = rs.prune(MODEL, sparsity=0.9, allocation="global", score=lambda name, weight: np.abs(weight))
    row = rs.prune(MODEL, sparsity=0.9, allocation="global", criterion="magnitude")
    assert own.model.to_bytes() == row.model.to_bytes()


def test_a_criterion_is_given_its_inputs(images):
    images = images[:32]
    row = rs.prune(MODEL, sparsity=0.9, allocation="global", criterion="wanda", calibration=images)
    own = rs.prune(MODEL, sparsity=0.9, allocation="global", calibration=images,
                   score=lambda name, weight, inputs: np.abs(weight.astype(float)) * inputs)
    assert all((row.masks[name] == own.masks[name]).all() for name in row.masks)
    # A third parameter with a default is the caller's own.
    rs.prune(MODEL, sparsity=0.9, score=lambda name, weight, power=2: np.abs(weight) ** power)


@pytest.mark.parametrize("calibration", [
    lambda images: (batch for batch in np.split(images[:256], 4)),
    lambda images: [(batch, None) for batch in np.split(images[:512], 8)],
    lambda images: list(images[:256]),
    lambda images: ASSETS / "digits-images-idx3-ubyte.gz",
])
def test_images_come_in_any_form(result, images, calibration):
    other = rs.prune(MODEL, sparsity=0.9, repair="least-squares", calibration=calibration(images), preset="raw")
    assert other.model.to_bytes() == result.model.to_bytes()


def test_progress_is_told_and_its_exceptions_stop_the_work(images):
    stages = []
    rs.prune(MODEL, sparsity=0.5, repair="bn", calibration=images[:64], progress=lambda *state: stages.append(state))
    assert stages and all(done <= total for _, done, total in stages)

    def stop(stage, done, total):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        rs.prune(MODEL, sparsity=0.5, repair="least-squares", calibration=images[:64], progress=stop)


@pytest.mark.parametrize("arguments, message", [
    ({}, "sparsity and macs"),
    ({"sparsity": 1.5}, "sparsity"),
    ({"sparsity": 0.5, "repair": "magic"}, "magic"),
    ({"sparsity": 0.5, "criterion": "magic"}, "magic"),
    ({"sparsity": 0.5, "calibration": np.zeros((2, 8, 8), np.float32)}, r"\[N, C, H, W\]"),
    ({"sparsity": 0.5, "calibration": np.zeros((2, 1, 8, 8))}, "float32"),
    ({"sparsity": 0.5, "calibration": iter([])}, "no images"),
    ({"sparsity": 0.5, "calibration": "nowhere"}, "nowhere"),
    ({"sparsity": 0.5, "score": lambda name, weight: np.zeros(3)}, "scores"),
])
def test_what_is_wrong_is_named(arguments, message):
    with pytest.raises((ValueError, OSError), match=message):
        rs.prune(MODEL, **arguments)


def test_an_exception_in_a_criterion_comes_out():
    def score(name, weight):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        rs.prune(MODEL, sparsity=0.5, score=score)


def test_wrong_models_are_named(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"\xff" * 40)
    for wrong in (tmp_path / "broken.onnx", tmp_path / "missing.onnx", 3):
        with pytest.raises((ValueError, OSError), match="broken|missing|int"):
            rs.prune(wrong, sparsity=0.5)


def test_a_sweep_becomes_rows(tmp_path):
    recipe = {"models": [{"path": "digits"}], "sparsities": [0.5, 0.9], "repairs": ["none", "bn"], "allocations": ["erk"],
              "calibration_images": [32], "controls": False, "limit": 100, "diagnostic_images": 0}
    study = rs.sweep(recipe, tmp_path / "study")
    points = [point for curve in study.data["models"][0]["curves"] for point in curve["points"]]
    assert len(points) == 4


def test_a_criterion_in_python_takes_part_in_a_sweep(tmp_path):
    images = str(ASSETS / "digits-images-idx3-ubyte.gz")
    recipe = {"models": [{"path": str(MODEL), "calibration": images, "data": images}], "preset": "raw", "sparsities": [0.9],
              "criteria": ["magnitude", lambda name, weight: np.abs(weight)], "allocations": ["global"], "repairs": ["none"],
              "calibration_images": [32], "controls": False, "limit": 100, "diagnostic_images": 0}
    curves = rs.sweep(recipe, tmp_path / "study").data["models"][0]["curves"]
    assert curves[0]["configuration"]["criterion"] != curves[1]["configuration"]["criterion"]
    assert curves[0]["points"] == curves[1]["points"]


def test_training_tells_each_epoch(tmp_path):
    rows = []
    recipe = {"arch": "lenet-300-100", "data": "digits", "epochs": 2, "batch": 100, "sparsity": 0.8, "method": "random"}
    report = rs.train(recipe, tmp_path / "run", on_epoch=rows.append)
    assert [row["epoch"] for row in rows] == [1, 2] == [row["epoch"] for row in report["outcome"]["rows"]]


def test_the_package_has_the_command():
    done = subprocess.run([sys.executable, "-m", "resprout", "list", "--json"], check=True, stdout=subprocess.PIPE, text=True)
    assert "criteria" in json.loads(done.stdout)
    assert subprocess.run([sys.executable, "-m", "resprout", "paint"], stderr=subprocess.DEVNULL).returncode == 2


def test_a_wish_becomes_a_network(images, tmp_path):
    found = rs.compress(
        MODEL, tmp_path / "small", calibration=images[:60], parameters=0.3, max_loss=90, pattern="unstructured", budget=2
    )
    row = found.report["rows"][found.report["nearest"]]
    assert found.kept and row["cost"]["parameters"] <= 0.3
    assert rs.Session(found.model)(images[:2]).shape == (2, 10)
    assert (found.folder / "report.html").exists()
    with pytest.raises(ValueError, match="no wish"):
        rs.compress(MODEL, tmp_path / "none", calibration=images[:60])


def example(name):
    path = pathlib.Path(__file__).parents[1] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_examples_run(tmp_path, capsys):
    example("own_criterion").main()
    assert "layer1.conv1.weight" in capsys.readouterr().out
    pytest.importorskip("pandas")
    example("read_sweep").main(tmp_path / "study")
    assert "repair" in capsys.readouterr().out


def test_a_module_is_pruned_and_gets_its_weights_back(images):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")
    nn = torch.nn
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)).eval()
    result = rs.prune(module, sparsity=0.8, repair="bn", calibration=images[:64])
    masks = rs.apply(module, result)
    assert sum(int(mask.sum()) for mask in masks.values()) == result.report["kept"]
    with torch.no_grad():
        expected = module(torch.from_numpy(images[:8])).numpy()
    np.testing.assert_allclose(rs.Session(result)(images[:8]), expected, rtol=1e-3, atol=1e-3)


def test_the_exporters_own_message_comes_out(images):
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnx")

    class Eigen(torch.nn.Module):
        def forward(self, images):
            return torch.linalg.eigvals(images).real

    module = Eigen().train()
    with pytest.raises(Exception, match="linalg_eigvals"):
        rs.prune(module, sparsity=0.5, calibration=images[:4])
    assert module.training


def test_bars_need_tqdm_and_a_progress_that_can_be_called(images):
    with pytest.raises(ValueError, match="progress"):
        rs.prune(MODEL, sparsity=0.5, progress=3)
    if importlib.util.find_spec("tqdm") is None:
        with pytest.raises(ValueError, match="tqdm"):
            rs.prune(MODEL, sparsity=0.5, progress=True)
    else:
        rs.prune(MODEL, sparsity=0.5, repair="bn", calibration=images[:64], progress=True)
