"""Which base here a copy is: fused, renamed, quantized by others, at a hub, and never by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.manifest import BaseRecord
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.domain.refs import Ref
from adapterhub.domain.stores import FileEntry, Snapshot
from adapterhub.errors import NotFoundError
from adapterhub.hub.stores.directory import DirectoryStore
from adapterhub.hub.stores.huggingface import HuggingFaceStore
from adapterhub.models.base_files import FolderFiles, RemoteFiles, Weights, read_weights
from adapterhub.models.bases import add_base, base_folder, base_for
from adapterhub.models.fingerprint import fingerprint, fingerprint_folder
from adapterhub.models.matching import Match, match_source, remember
from adapterhub.models.same_weights import compare_weights
from adapterhub.models.stored_values import matrix_shape, read_rows
from adapterhub.testing.tiny import add_tiny_base, temporary_home, write_tiny
from tests.hub_server import Hub, running_hub

pytestmark = pytest.mark.models

WEIGHTS = "model.safetensors"
State = dict[str, Any]


def rewrite(folder: Path, change: Callable[[State], State]) -> Path:
    from safetensors.torch import load_file, save_file

    state = {k: v.contiguous() for k, v in change(load_file(folder / WEIGHTS)).items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    return folder


def split(state: State) -> State:
    """Phi-3's layers as Mistral stores them: 4 heads of 16 rows, 2 for keys and values."""
    found: State = {}
    for name, tensor in state.items():
        if ".qkv_proj." in name:
            for part, rows in zip("qkv", tensor.split((64, 32, 32)), strict=True):
                found[name.replace("qkv_proj", f"{part}_proj")] = rows.clone()
        elif ".gate_up_proj." in name:
            for part, rows in zip(("gate", "up"), tensor.chunk(2), strict=True):
                found[name.replace("gate_up_proj", f"{part}_proj")] = rows.clone()
        else:
            found[name] = tensor
    return found


def tune(state: State) -> State:
    """A step of a fine-tune that leaves norms alone."""
    import torch

    return {k: v + 1e-3 * torch.randn_like(v) if v.ndim == 2 else v for k, v in state.items()}


def as_bfloat16(state: State) -> State:
    import torch

    return {k: v.to(torch.bfloat16) if v.ndim == 2 else v for k, v in state.items()}


def weights_of(folder: Path) -> Weights:
    return read_weights(FolderFiles(folder))


def stored(family: str, scheme: str, home: Path) -> Path:
    base = add_tiny_base(family, scheme, home)
    with temporary_home(home):
        return base_folder(base.spec.name)


@pytest.mark.parametrize("scheme", ["nf4", "int8", "bf16"])
def test_rows_are_read_as_the_library_dequantizes_them(scheme: str, home: Path) -> None:
    import torch

    base = add_tiny_base("phi3", scheme, home, dense=True)
    name = "model.layers.1.mlp.gate_up_proj.weight"
    weights = weights_of(stored("phi3", scheme, home))
    dense = base.model.state_dict()[name].to(torch.float64)
    assert matrix_shape(weights, name) == tuple(dense.shape)
    found = read_rows(weights, name, [0, 7, 200])
    assert torch.allclose(found.value, dense[[0, 7, 200]], atol=1e-6)
    original = weights_of(home / "sources" / "phi3-0")
    true = read_rows(original, name, [0, 7, 200]).value
    assert bool(((found.low <= true) & (true <= found.high)).all())
    assert bool(((found.value - true).abs() <= found.bound).all())


@pytest.mark.parametrize("family", ["llama", "phi3", "qwen2", "gpt2"])
@pytest.mark.parametrize("scheme", ["nf4", "int8", "bf16"])
def test_a_quantized_copy_has_the_sampled_weights_and_a_fine_tune_has_not(
    family: str, scheme: str, home: Path, tmp_path: Path
) -> None:
    ours = weights_of(stored(family, scheme, home))
    found = compare_weights(weights_of(write_tiny(family, tmp_path / "a")), ours)
    assert found.agree, found
    assert found.worst <= 1
    tuned = weights_of(rewrite(write_tiny(family, tmp_path / "b"), tune))
    assert compare_weights(tuned, ours).outside > 0


def test_two_quantizations_of_one_model_agree(home: Path) -> None:
    nf4, int8, bf16 = (weights_of(stored("phi3", s, home)) for s in ("nf4", "int8", "bf16"))
    assert compare_weights(nf4, int8).agree
    assert compare_weights(bf16, nf4).agree
    assert not compare_weights(nf4, weights_of(stored("mistral", "nf4", home))).agree


def test_a_split_copy_of_a_fused_base_agrees_and_is_convertible(
    own_home: Path, tmp_path: Path
) -> None:
    add_base("phi", str(write_tiny("phi3", tmp_path / "phi")), scheme_by_name("nf4"))
    copy = rewrite(rewrite(write_tiny("phi3", tmp_path / "copy"), split), as_bfloat16)
    [found] = judged(copy)
    assert (found.verdict, found.is_it) == ("convertible", True), found.why
    assert "its layers are split, here fused" in found.why


def judged(source: Path | str) -> list[Match]:
    return match_source(str(source), say=lambda _: None)[1]


def test_a_fine_tune_with_frozen_norms_is_another_base_of_the_same_layout(
    own_home: Path, tmp_path: Path
) -> None:
    add_base("llama", str(write_tiny("llama", tmp_path / "llama")), scheme_by_name("nf4"))
    [found] = judged(rewrite(write_tiny("llama", tmp_path / "tuned"), tune))
    assert (found.verdict, found.is_it) == ("same layout", False)
    assert "differ by more than rounding" in found.why
    [found] = judged(write_tiny("llama", tmp_path / "seed", seed=1))
    assert (found.verdict, found.is_it) == ("same layout", False)
    [found] = judged(write_tiny("qwen2", tmp_path / "qwen2"))
    assert (found.verdict, found.is_it) == ("other", False)


@pytest.fixture
def hub(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_quantized_copy_at_a_hub_is_recognised_and_remembered(
    hub: Hub, own_home: Path, tmp_path: Path
) -> None:
    """As `unsloth/x-bnb-4bit`: another's NF4 of the same model, under a name that says nothing."""
    source = write_tiny("llama", tmp_path / "acme")
    add_base("mine", str(source), scheme_by_name("int8"))
    add_base("theirs", str(source), scheme_by_name("nf4"))
    hub.put("copies/model-bnb-4bit", files_of(base_folder("theirs")))
    record = BaseRecord(id="copies/model-bnb-4bit")
    with pytest.raises(NotFoundError):
        base_for(record)
    copy, found = match_source("copies/model-bnb-4bit", say=lambda _: None)
    assert {match.base.name: match.is_it for match in found} == {"mine": True, "theirs": True}
    assert all(remember(match, copy) for match in found)
    assert base_for(record).name == "mine"
    assert not any(remember(match, copy) for match in match_source(copy.id, say=print)[1])


def test_a_base_at_a_hub_is_known_by_little_of_it(hub: Hub, tmp_path: Path) -> None:
    """The same three parts as of the folder, by ranges: headers and norms, no weights."""
    folder = wide(tmp_path / "wide")
    hub.put("acme/wide", files_of(folder))
    store = HuggingFaceStore(hub.url)
    remote = RemoteFiles(store, store.resolve(Ref(namespace="acme", name="wide")))
    assert fingerprint(read_weights(remote)) == fingerprint_folder(folder)
    whole = sum(len(data) for name, data in files_of(folder).items() if "safetensors" in name)
    assert whole > 30_000_000
    assert hub.bytes_of(".safetensors") < 0.02 * whole
    assert len(hub.downloads(".safetensors")) < 40


def wide(folder: Path) -> Path:
    """Two shards of zeros and random norms, with an index: 34 MB of weights, without a model."""
    import json

    import torch
    from safetensors.torch import save_file

    write_tiny("llama", folder, layers=1)
    (folder / WEIGHTS).unlink()
    places: dict[str, str] = {}
    for shard in (1, 2):
        layer = f"model.layers.{shard}"
        state = {
            f"{layer}.mlp.up_proj.weight": torch.zeros(4096, 1024),
            f"{layer}.input_layernorm.weight": torch.rand(1024),
            f"{layer}.post_attention_layernorm.weight": torch.rand(1024),
        }
        save_file(state, folder / f"model-{shard}.safetensors")
        places |= dict.fromkeys(state, f"model-{shard}.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    (folder / "unrelated.safetensors").write_bytes(b"not of the model")
    return folder


def test_a_base_in_a_directory_is_known_by_little_of_it(tmp_path: Path) -> None:
    folder = wide(tmp_path / "wide")
    root = tmp_path / "registry"
    read: list[int] = []
    entries = tuple(put_object(root, path) for path in sorted(folder.iterdir()))
    ref = Ref(namespace="acme", name="wide")

    class Counting(DirectoryStore):
        def read(self, *args: Any, **options: Any) -> Iterator[bytes]:
            for chunk in super().read(*args, **options):
                read.append(len(chunk))
                yield chunk

    snapshot = Snapshot(ref=ref, commit="c" * 40, repo_uuid="u", files=entries)
    remote = RemoteFiles(Counting(root.as_uri()), snapshot)
    assert fingerprint(read_weights(remote)) == fingerprint_folder(folder)
    assert sum(read) < 0.02 * sum(entry.size for entry in entries)


def put_object(root: Path, path: Path) -> FileEntry:
    data = path.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    target = root / "objects" / sha256[:2] / sha256
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return FileEntry(path=path.name, size=len(data), sha256=sha256)


def test_a_shard_that_the_index_names_must_be_there(tmp_path: Path) -> None:
    folder = wide(tmp_path / "wide")
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(NotFoundError, match=r"lacks 'model-2\.safetensors'"):
        fingerprint_folder(folder)


def test_a_name_nobody_has_is_said_to_be_no_model(hub: Hub) -> None:
    with pytest.raises(NotFoundError, match="no folder, GGUF file or model of the hub is called"):
        match_source("acme/none", say=lambda _: None)
