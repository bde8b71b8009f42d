"""Faults of files: what is on disk in the place of weights, and what is wrong within them."""

from __future__ import annotations

import io
import json
import shutil
from typing import Any

import torch

from tests.faults.draft import Draft, Tensors, module
from tests.faults.fault import Fault

A = module(0, "q_proj") + ".lora_A.weight"
B = module(0, "q_proj") + ".lora_B.weight"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
PAGE = b"<!DOCTYPE html><html><body>Sign in</body></html>"

Header = dict[str, Any]


def twice(header: Header) -> str:
    entry = json.dumps({A: header[A]})[1:-1]
    return json.dumps(header)[:-1] + f", {entry}}}"


def overlapping(header: Header) -> Header:
    """Both are of one size, so that only the place is wrong."""
    twin = module(1, "q_proj") + ".lora_A.weight"
    return header | {A: header[twin]}


def past_the_end(header: Header) -> Header:
    last = max((n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"])
    start, end = header[last]["data_offsets"]
    moved = header[last] | {"data_offsets": [start + 4096, end + 4096]}
    return header | {last: moved}


def empty(header: Header) -> Header:
    return header | {"empty.lora_A.weight": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}


def pickle_only(draft: Draft) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(draft.weights), draft.folder / "adapter_model.bin")
    draft.weights.unlink()


def pickle_renamed(draft: Draft) -> None:
    pickle_only(draft)
    (draft.folder / "adapter_model.bin").rename(draft.weights)


def old_pickle(draft: Draft) -> None:
    """As torch wrote before 1.6, which begins as any pickle does."""
    written = io.BytesIO()
    torch.save({"a": torch.ones(2)}, written, _use_new_zipfile_serialization=False)
    draft.weights.write_bytes(written.getvalue())


def linked(draft: Draft) -> None:
    there = draft.folder.parent / f"{draft.folder.name}-weights"
    draft.weights.rename(there)
    draft.weights.symlink_to(there)


def alike(draft: Draft) -> None:
    shutil.copy(draft.weights, draft.folder / "Adapter_Model.safetensors")


def cut(draft: Draft, count: int) -> None:
    draft.weights.write_bytes(draft.weights.read_bytes()[:-count])


def two_in_one(found: Tensors) -> Tensors:
    """As state_dict() of a model with two adapters has them."""
    named = {}
    for name, tensor in found.items():
        for slot in ("default", "second"):
            named[name.replace(".weight", f".{slot}.weight")] = tensor
    return named


def one_value(draft: Draft, value: float, *, half: bool = False) -> None:
    def put(found: Tensors) -> Tensors:
        tensors = {name: t.half() if half else t for name, t in found.items()}
        tensors[A][1, 3] = value
        return tensors

    draft.tensors(put)


def zero_module(name: str, tensor: Any) -> Any:
    return torch.zeros_like(tensor) if name == B else tensor


def swapped_parts(draft: Draft) -> None:
    draft.tensors(
        lambda found: {
            name.replace("lora_A", "lora_?").replace("lora_B", "lora_A").replace("lora_?", "lora_B")
            if name in (A, B)
            else name: t
            for name, t in found.items()
        }
    )


def half_an_embedding(draft: Draft) -> None:
    draft.config(target_modules=["q_proj", "v_proj", "down_proj", "embed_tokens"])
    part = "base_model.model.model.embed_tokens.lora_embedding_A"
    draft.tensors(lambda found: found | {part: torch.ones(4, 263)})


def other_layers(draft: Draft) -> None:
    """Numbered from 1, as some frameworks do."""
    draft.tensors(
        lambda found: {
            name.replace("layers.1", "layers.2").replace("layers.0", "layers.1"): t
            for name, t in found.items()
        }
    )


FILES: tuple[Fault, ...] = (
    Fault(name="a tensor is in the header twice", says="twice|duplicate",
          plant=lambda d: d.header(twice)),
    Fault(name="two tensors share their bytes", says="overlaps its neighbour|leaves a gap before",
          plant=lambda d: d.header(overlapping)),
    Fault(name="offsets past the end", says="gap before it|cut short",
          plant=lambda d: d.header(past_the_end)),
    Fault(name="bytes behind the last tensor", says="goes on after its last tensor",
          plant=lambda d: d.header(lambda h: h, body=b"hidden")),
    Fault(name="the file is cut short", says="cut short", plant=lambda d: cut(d, 4)),
    Fault(name="the file ends in its header", says="ends inside its header",
          plant=lambda d: d.weights.write_bytes(d.weights.read_bytes()[:200])),
    Fault(name="a Git LFS pointer", says="Git LFS pointer",
          plant=lambda d: d.weights.write_bytes(LFS)),
    Fault(name="a web page", says="HTML page", plant=lambda d: d.weights.write_bytes(PAGE)),
    Fault(name="an empty file", says="too short", plant=lambda d: d.weights.write_bytes(b"")),
    Fault(name="a pickle only", says="as a pickle", plant=pickle_only),
    Fault(name="a pickle under the name of safetensors", says="a zip or pickle",
          plant=pickle_renamed),
    Fault(name="an old pickle under that name", says="is a pickle", plant=old_pickle),
    Fault(name="no weights", says="adapter_model.safetensors", plant=lambda d: d.weights.unlink()),
    Fault(name="no config", says="adapter_config.json",
          plant=lambda d: (d.folder / "adapter_config.json").unlink()),
    Fault(name="the weights are a symbolic link", says="not a plain file", plant=linked),
    Fault(name="two names differ by case only", says="one file on some systems",
          plant=alike),
    Fault(name="float8 values, well shaped", says="F8_E4M3",
          plant=lambda d: d.each(lambda _, t: t.to(torch.float8_e4m3fn))),
    Fault(name="whole numbers", says="I32",
          plant=lambda d: d.each(lambda _, t: (100 * t).to(torch.int32))),
    Fault(name="an empty tensor", says="has no size", plant=lambda d: d.header(empty)),
    Fault(name="a NaN in one element", says=r"1 of 12 tensors hold NaN.*q_proj\.lora_A",
          plant=lambda d: one_value(d, float("nan"))),
    Fault(name="an infinity in one element", says="1 of 12 tensors hold NaN or infinity",
          plant=lambda d: one_value(d, float("inf"))),
    Fault(name="a value that overflowed in float16", says="1 of 12 tensors hold NaN or infinity",
          plant=lambda d: one_value(d, 1e6, half=True)),
    Fault(name="A and B change names in one module", says=r"rank.*q_proj", plant=swapped_parts),
    Fault(name="A is transposed", says="not of the config's rank",
          plant=lambda d: d.each(lambda n, t: t.T if "lora_A" in n else t)),
    Fault(name="A and B are transposed", says="not of the config's rank",
          plant=lambda d: d.each(lambda _, t: t.T)),
    Fault(name="B is missing in one module", says="A without B",
          plant=lambda d: d.tensors(lambda f: {n: t for n, t in f.items() if n != B})),
    Fault(name="two adapters in one file", says="no place in the config.*second",
          plant=lambda d: d.tensors(two_in_one)),
    Fault(name="one module is zero", says="1 of 6 modules change nothing",
          plant=lambda d: d.each(zero_module)),
    Fault(name="layers are numbered from 1", says=r"lacks.*layers\.0", plant=other_layers),
    Fault(name="names of a compiled model", says="none of the adapter's 12 tensors belongs",
          plant=lambda d: d.rename("base_model.model.", "base_model.model._orig_mod.")),
    Fault(name="the parts of an embedding, one missing", says="A without B or B without A",
          plant=half_an_embedding),
)  # fmt: skip
