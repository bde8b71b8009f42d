"""What a search for the learning rate says of itself: a table, a JSON document, a picture.

Knows figures and how to show them; how they came about is the search's.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

from adapterhub.formats.schema import to_domain, to_plain
from adapterhub.train.search import Trial, smoothed
from adapterhub.train.trials import Found

JSON_FILE = "find-lr.json"
PICTURE_FILE = "find-lr.png"
HEADER = ("rate", "steps", "train loss", "held out", "fate")


def table(found: Found) -> list[tuple[str, ...]]:
    """A row for each trial, in the order they took place."""
    return [
        (
            f"{trial.rate:g}",
            f"{trial.steps}",
            "" if trial.train_loss is None else f"{trial.train_loss:.3f}",
            f"{trial.held_out:.3f}" if trial.folds else "",
            fate(trial, found),
        )
        for trial in found.trials
    ]


def fate(trial: Trial, found: Found) -> str:
    """What became of a trial's rate after it."""
    if not trial.folds:
        return "diverged"
    further = [t.steps for t in found.trials if t.rate == trial.rate and t.steps > trial.steps]
    if further:
        return f"on to {min(further)} steps"
    return "chosen" if trial.rate == found.rate else "dropped"


def remark(found: Found) -> str:
    """What the table alone does not tell."""
    rows = "the rows of --eval-data" if found.held_out_from == "eval_data" else "rows set aside"
    text = (
        f"judged by {found.held_out} of {rows}, in {found.steps} steps; of rates that differ by "
        "less than the noise the smallest counts as best"
    )
    rates = sorted({trial.rate for trial in found.trials})
    if found.rate in (rates[0], rates[-1]):
        end = "smallest" if found.rate == rates[0] else "largest"
        text += f"\nthe {end} rate that was tried has won: --lr {found.rate:g} searches round it"
    return text


def document(found: Found) -> dict[str, Any]:
    """The whole search as plain values, with the fate of each trial."""
    plain: dict[str, Any] = to_plain(found)
    for entry, trial in zip(plain["trials"], found.trials, strict=True):
        entry["train_loss"] = trial.train_loss
        entry["held_out"] = trial.held_out if trial.folds else None
        entry["fate"] = fate(trial, found)
    return plain


def encode(found: Found) -> bytes:
    return json.dumps(document(found), indent=2, allow_nan=False).encode()


def decode(plain: Mapping[str, Any], *, name: str) -> Found:
    """The search that `document` tells of. Raises FormatError."""
    derived = ("held_out", "fate")
    trials = [
        {key: value for key, value in trial.items() if key not in derived}
        for trial in plain.get("trials", ())
    ]
    return to_domain({**plain, "trials": trials}, Found, name=name)


def picture(found: Found) -> bytes:
    """A PNG: the loss of the range test and the held-out loss of each trial, over the rate."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    _draw_range(axes, found)
    for steps in sorted({trial.steps for trial in found.trials}):
        rung = [trial for trial in found.trials if trial.steps == steps and trial.folds]
        axes.plot(
            [trial.rate for trial in rung],
            [trial.held_out for trial in rung],
            marker="o",
            linewidth=1.2,
            label=f"held out after {steps} steps",
        )
    axes.axvline(
        found.rate, color="black", linestyle="--", linewidth=1, label=f"chosen: {found.rate:g}"
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss per answer token (nats)")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    file = io.BytesIO()
    figure.savefig(file)
    return file.getvalue()


def _draw_range(axes: Any, found: Found) -> None:
    rates = [point.rate for point in found.points]
    losses = [point.loss for point in found.points]
    axes.plot(rates, losses, color="grey", linewidth=0.8, alpha=0.5)
    axes.plot(rates, smoothed(losses), color="grey", linewidth=1.8, label="range test")
    axes.axvspan(found.low, found.high, color="grey", alpha=0.12, label="where rates were tried")
