"""Train, get killed at a random moment, go on: the sha256 of what comes of it, many times over.

    python tests/killed_runs.py RECIPE FOLDER TIMES SEED

A process imports everything once and forks for each run, so that a kill costs no start-up. Test
equipment: knows no test. Prints one JSON document.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

from adapterhub.domain.digest import sha256_hex
from adapterhub.domain.recipe import Recipe
from adapterhub.formats.recipe_file import decode_recipe
from adapterhub.train.checkpoint import FILE, checkpoint_folder


def start(recipe: Recipe, out: Path) -> int:
    """The process id of a run that has just begun."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        from adapterhub.train.run import train_adapter

        train_adapter(recipe, out, device="cpu")
        code = 0
    finally:
        if code:
            traceback.print_exc()
        os._exit(code)


def whole(recipe: Recipe, out: Path) -> str:
    """Run to the end; the sha256 of the weights."""
    _, status = os.waitpid(start(recipe, out), 0)
    assert status == 0, f"a run ended with {status}"
    assert not checkpoint_folder(out).exists()
    return sha256_hex((out / "adapter_model.safetensors").read_bytes())


def wait_for_checkpoint(out: Path) -> None:
    while not (checkpoint_folder(out) / FILE).is_file() and not out.exists():
        time.sleep(0.001)


def measured(recipe: Recipe, out: Path) -> float:
    """How many seconds lie between the first checkpoint of a run and its end."""
    child = start(recipe, out)
    wait_for_checkpoint(out)
    began = time.perf_counter()
    os.waitpid(child, 0)
    return time.perf_counter() - began


def killed(recipe: Recipe, out: Path, seconds: float) -> bool:
    """Kill a run so long after its first checkpoint; whether it was not yet done."""
    child = start(recipe, out)
    wait_for_checkpoint(out)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return not out.exists()


def main(recipe_file: str, folder: str, times: str, seed: str) -> None:
    import matplotlib.figure  # noqa: F401
    import peft  # noqa: F401
    import torch  # noqa: F401
    import transformers  # noqa: F401

    import adapterhub.train.run  # noqa: F401

    recipe, place = decode_recipe(Path(recipe_file).read_bytes()), Path(folder)
    made = {whole(recipe, place / "calm")}
    duration = measured(recipe, place / "measured")
    draw, resumed, tries = random.Random(int(seed)), 0, 0
    while resumed < int(times):
        tries += 1
        out = place / f"killed{tries}"
        if killed(recipe, out, draw.uniform(0, 0.9) * duration):
            resumed += 1
            made.add(whole(recipe, out))
    sys.stdout.write(json.dumps({"resumed": resumed, "sha256": sorted(made)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
