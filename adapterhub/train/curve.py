"""The loss curve of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adapterhub.train.progress import Step


def draw_losses(curves: dict[str, Sequence[Step]], path: Path) -> None:
    """Write a PNG: the loss of each named run over its steps, on a logarithmic axis, and that on
    held-out rows where it was taken."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, steps in curves.items():
        axes.plot([s.number for s in steps], [s.loss for s in steps], label=name, linewidth=1.8)
        held_out = [(s.number, s.eval_loss) for s in steps if s.eval_loss is not None]
        if held_out:
            axes.plot(*zip(*held_out, strict=True), "o--", label=f"{name}, held out", markersize=4)
    axes.set_yscale("log")
    axes.set_xlabel("step")
    axes.set_ylabel("loss per answer token (nats)")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)
