"""The loss curve of a training as an SVG picture, the same bytes for the same metrics."""

from __future__ import annotations

import numpy as np

from snaketune import files


def draw(metrics: files.StrPath, picture: files.StrPath) -> None:
    """Draw training loss (each update, and a running mean) and validation loss over the updates."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = list(files.read_jsonl(metrics))
    trained = np.array([(row["update"], row["loss"]) for row in rows if row.get("loss") is not None]).reshape(-1, 2)
    valid = np.array([(row["update"], row["validation_loss"]) for row in rows if "validation_loss" in row], float)
    with pyplot.rc_context({"svg.hashsalt": "snaketune", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
        if len(trained):
            axes.plot(*trained.T, color="0.75", linewidth=0.8, label="training, each update")
            span = max(1, len(trained) // 50)
            mean = np.convolve(trained[:, 1], np.ones(span) / span, mode="valid")
            axes.plot(trained[span - 1 :, 0], mean, color="C0", label=f"training, mean of {span}")
        if len(valid):
            axes.plot(*valid.T, color="C3", marker="o", markersize=3, label="validation")
            best = valid[np.argmin(valid[:, 1])]
            axes.annotate(f"{best[1]:.4f}", best, textcoords="offset points", xytext=(0, 8), ha="center", color="C3")
        axes.set_xlabel("update")
        axes.set_ylabel("loss (nats per trained token)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        with files.replacing(picture) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)
