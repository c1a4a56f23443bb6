"""The journal of a training run in TensorBoard or MLflow, whichever is installed.

    python examples/log_training.py RUN
"""
import json
import pathlib
import sys


def rows(folder):
    """The rows of the journal, one for each epoch."""
    lines = (pathlib.Path(folder) / "journal.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def numbers(row):
    return {key: value for key, value in row.items() if isinstance(value, (int, float)) and key != "epoch"}


def main(folder):
    try:
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(folder) as writer:
            for row in rows(folder):
                for key, value in numbers(row).items():
                    writer.add_scalar(key, value, row["epoch"])
    except ImportError:
        import mlflow

        with mlflow.start_run(run_name=pathlib.Path(folder).name):
            for row in rows(folder):
                mlflow.log_metrics(numbers(row), step=row["epoch"])


if __name__ == "__main__":
    main(sys.argv[1])
