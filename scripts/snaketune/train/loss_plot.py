"""Plots the loss of a training as SVG, the same bytes for the same metrics."""

from __future__ import annotations

import numpy as np

from snaketune import files
from snaketune.contracts.train import StepMetrics, ValidationMetrics
from snaketune.train.metrics_log import read_metrics


def draw_loss(metrics: files.StrPath, picture: files.StrPath) -> None:
    """Draw training loss (each step, and a running mean) and validation loss over the steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = read_metrics(metrics)
    train = [(line.step, line.loss) for line in lines if isinstance(line, StepMetrics) and line.loss is not None]
    valid = [(line.step, line.validation_loss) for line in lines if isinstance(line, ValidationMetrics)]
    train_loss, valid_loss = (np.array(points, float).reshape(-1, 2) for points in (train, valid))
    with pyplot.rc_context({"svg.hashsalt": "snaketune", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
        if len(train_loss):
            axes.plot(*train_loss.T, color="0.75", linewidth=0.8, label="training, each step")
            span = max(1, len(train_loss) // 50)
            mean = np.convolve(train_loss[:, 1], np.ones(span) / span, mode="valid")
            axes.plot(train_loss[span - 1 :, 0], mean, color="C0", label=f"training, mean of {span}")
        if len(valid_loss):
            axes.plot(*valid_loss.T, color="C3", marker="o", markersize=3, label="validation")
            best = valid_loss[np.argmin(valid_loss[:, 1])]
            axes.annotate(f"{best[1]:.4f}", best, textcoords="offset points", xytext=(0, 8), ha="center", color="C3")
        axes.set_xlabel("step")
        axes.set_ylabel("loss (nats per target token)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        with files.replacing(picture) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
