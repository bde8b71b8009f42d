"""`verify` notices, without a base, a file that is not what its config calls for: every method."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.manifest import CONFIG_FILE, MANIFEST_FILE, WEIGHTS_FILE, Manifest
from adapterhub.domain.match import record_of
from adapterhub.formats.manifest import encode_manifest
from adapterhub.hub.problems import Report
from adapterhub.hub.verify import verify_folder
from adapterhub.models.loader import Base
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.attach import method_of
from adapterhub.testing import practice
from adapterhub.testing.tiny import add_tiny_base

pytestmark = pytest.mark.models

OPTIONS: dict[str, dict[str, Any]] = {
    "bottleneck": {"placement": "houlsby"},
    "full": {},
    "ia3": {},
    "ln_tuning": {},
    "p_tuning": {"tokens": 4},
    "prefix_tuning": {"tokens": 4},
    "prompt_tuning": {"tokens": 4},
}
Spoil = Callable[[dict[str, Any], dict[str, Any]], None]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    return add_tiny_base("llama", "bf16", tmp_path_factory.mktemp("home"))


def verified(
    base: Base, method: str, folder: Path, spoil: Spoil | None = None, *, known: bool = True
) -> Report:
    from safetensors.torch import save_file

    config = method_of(method).new_config(base.spec, OPTIONS[method])
    adapter = method_of(method).attach(base, "one", config)
    practice.shake(adapter)
    state, config = adapter.state(), dict(adapter.config)
    adapter.detach()
    if spoil:
        spoil(state, config)
    record = record_of(base.spec)
    manifest = Manifest(
        method=method, config_version=1, base=record if known else replace(record, family=None)
    )
    folder.mkdir(exist_ok=True)
    save_file(state, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    (folder / MANIFEST_FILE).write_bytes(encode_manifest(manifest))
    return verify_folder(folder)


def lose_one_of_a_block(state: dict[str, Any], config: dict[str, Any]) -> None:
    lost = state.pop(next((name for name in sorted(state) if ".1." in name), min(state)))
    if not state:  # a file without tensors is no file
        state["other"] = lost


def add_one(state: dict[str, Any], config: dict[str, Any]) -> None:
    """One more block's worth of whatever there is."""
    name = next((name for name in sorted(state) if ".1." in name), None)
    state[name.replace(".1.", ".3.") if name else "more"] = state[min(state)].clone()


def grow_one(state: dict[str, Any], config: dict[str, Any]) -> None:
    tensor = state[min(state)]
    state[min(state)] = tensor.new_ones(*tensor.shape, 2)


def call_for_more(state: dict[str, Any], config: dict[str, Any]) -> None:
    """A config of something larger than the file."""
    for key in ("num_virtual_tokens", "reduction"):
        if key in config:
            config[key] += 1
    if "target_modules" in config:
        config["target_modules"] = [*config["target_modules"], "no_such_layer"]
    if "parts" in config:
        config["parts"] = "layers"


def test_every_bundled_method_with_tensors_is_held_to_it() -> None:
    ours = {entry.record.name for entry in catalog().methods if entry.record.tensors}
    assert ours - {"lora", "qlora"} == set(OPTIONS)


@pytest.mark.parametrize("method", OPTIONS)
def test_what_a_method_stores_is_found_to_fit(base: Base, method: str, tmp_path: Path) -> None:
    for known in (True, False):
        report = verified(base, method, tmp_path, known=known)
        assert report.ok, report.problems
        assert report.facts["tensors_match"] == "checked"


@pytest.mark.parametrize("spoil", [lose_one_of_a_block, add_one, grow_one, call_for_more])
@pytest.mark.parametrize("method", OPTIONS)
def test_a_file_that_does_not_fit_its_config_is_a_problem(
    base: Base, method: str, spoil: Spoil, tmp_path: Path
) -> None:
    if (method, spoil) == ("full", grow_one):
        return  # how large a weight is, only its base knows
    report = verified(base, method, tmp_path, spoil)
    assert {problem.code for problem in report.problems} == {"tensors-disagree"}
    assert all(problem.hint for problem in report.problems)
    assert report.facts["tensors_match"] == "broken"


@pytest.mark.parametrize("method", ["bottleneck", "prompt_tuning"])
def test_a_config_that_is_none_is_a_problem(base: Base, method: str, tmp_path: Path) -> None:
    def break_it(state: dict[str, Any], config: dict[str, Any]) -> None:
        for key in ("reduction", "num_virtual_tokens"):
            if key in config:
                config[key] = "many"

    assert not verified(base, method, tmp_path, break_it).ok


def test_asking_a_method_brings_in_no_torch(base: Base, tmp_path: Path) -> None:
    for method in OPTIONS:
        verified(base, method, tmp_path / method)
    code = (
        "import sys; from pathlib import Path; from adapterhub.hub.verify import verify_folder; "
        "assert all(verify_folder(path).facts['tensors_match'] == 'checked' "
        "for path in Path(sys.argv[1]).iterdir()); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
