"""What differs between transformers' and llama.cpp's form of a model family. No torch, no gguf."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """`name` is GGUF's general.architecture. `interleaved`: llama.cpp rotates neighbouring pairs of
    a head, transformers its two halves, so the rows of q and k stand in another order. `shifted`
    norms are stored as 1 + w."""

    name: str
    interleaved: bool = False
    shifted: bool = False


ARCHITECTURES = {
    "llama": Architecture(name="llama", interleaved=True),
    "mistral": Architecture(name="llama", interleaved=True),
    "qwen2": Architecture(name="qwen2"),
    "qwen3": Architecture(name="qwen3"),
    "phi3": Architecture(name="phi3"),
    "gemma": Architecture(name="gemma", shifted=True),
    "gemma2": Architecture(name="gemma2", shifted=True),
    "gemma3_text": Architecture(name="gemma3", shifted=True),
}
