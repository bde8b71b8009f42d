"""What a base model is: where it came from, how it is stored, and how to know it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adapterhub.domain.quantization import Scheme

Modality = Literal["causal-lm", "image-edit"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """Three ways to recognise a base, from weak to strong, and its text side.

    layout   sha256 over sorted (tensor name, shape, dtype): the same architecture and nothing more
    sketch   sha256 over all norm tensors in canonical float32: survives quantization, so an equal
             sketch means *probably* the same base (tunes with frozen norms share it)
    content  sha256 over the sha256 of every weight file: the same bytes, hence the same base
    tokenizer, chat_template   sha256 of the tokenizer files and of the template, if there are any
    """

    layout: str
    sketch: str
    content: str
    tokenizer: str | None = None
    chat_template: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseSpec:
    """A base on this machine. `source` is a hub id, a folder or a GGUF file; `revision` its commit
    or `sha256:...`. `fingerprint` describes the source weights, before our quantization."""

    name: str
    id: str
    source: str
    revision: str
    family: str
    modality: Modality
    scheme: Scheme
    fingerprint: Fingerprint
    parameters: int
    stored_bytes: int
    context_length: int
    note: str | None = None


def same_base(a: Fingerprint, b: Fingerprint) -> Literal["same", "probable", "other"]:
    """Equal content is the same base; an equal sketch only makes it probable."""
    if a.content == b.content:
        return "same"
    return "probable" if a.sketch == b.sketch else "other"
