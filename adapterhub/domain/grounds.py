"""The families of the tiny bases on which plugins are tested."""

from __future__ import annotations

TINY_FAMILIES = ("llama", "phi3", "qwen2", "mistral", "gpt2")
