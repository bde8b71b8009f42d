"""What a base model is: where it came from, how it is stored, and how to know it again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adapterhub.domain.digest import sha256_hex
from adapterhub.domain.quantization import Scheme

Modality = Literal["causal-lm", "image-edit"]
_NO_NORMS = sha256_hex(b"")  # the sketch of a base without norms, which says nothing
Verdict = Literal["same", "probable", "convertible", "same layout", "other"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fingerprint:
    """Three ways to recognise a base, from weak to strong, and its text side.

    layout   sha256 over sorted (tensor name, shape, dtype): the same architecture and nothing more
    sketch   sha256 over all norm tensors in canonical float32: survives quantization, so an equal
             sketch means *probably* the same base (tunes with frozen norms share it)
    content  sha256 over the sha256 of every weight file: the same bytes, hence the same base
    canonical  sha256 over the names and shapes of its split form (`domain.layout`): equal for a
             fused and a split file of one architecture; None for packed weights
    arrangement  how its layers are laid out: fused, split or plain
    tokenizer, chat_template   sha256 of the tokenizer files and of the template, if there are any
    """

    layout: str
    sketch: str
    content: str
    tokenizer: str | None = None
    chat_template: str | None = None
    canonical: str | None = None
    arrangement: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Alias:
    """Another copy of a base, such as `unsloth/x-bnb-4bit` or a folder, whose weights were found to
    be the base's; it may lay out its layers otherwise."""

    id: str
    revision: str | None = None
    arrangement: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseSpec:
    """A base on this machine. `source` is a hub id, a folder or a GGUF file; `revision` its commit
    or `sha256:...`. `fingerprint` describes the source weights, before our quantization.
    `aliases` are other copies of it.
    """

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
    aliases: tuple[Alias, ...] = ()


def same_base(a: Fingerprint, b: Fingerprint) -> Verdict:
    """Equal content is the same base; equal norms make it probable, or convertible where one file
    stores the layers of the other fused, split or under other names; equal shapes with other norms
    are the same layout, as those of any two fine-tunes are."""
    if a.content == b.content:
        return "same"
    if _NO_NORMS in (a.sketch, b.sketch):
        return "same layout" if a.layout == b.layout else "other"
    shapes_known = a.canonical is not None and b.canonical is not None
    alike = a.canonical == b.canonical if shapes_known else a.layout == b.layout
    if a.sketch != b.sketch:
        return "same layout" if alike else "other"
    arranged = a.arrangement is not None and b.arrangement is not None
    if arranged and a.arrangement != b.arrangement and (alike or not shapes_known):
        return "convertible"
    return "probable"
