"""The tiny bases that a method's promises are tried on: half of them always, all in long runs."""

from __future__ import annotations

# Every family, and two in each scheme.
QUICK = (("llama", "nf4"), ("phi3", "nf4"), ("qwen2", "bf16"), ("gpt2", "bf16"))
OTHERS = (("llama", "bf16"), ("phi3", "bf16"), ("qwen2", "nf4"), ("gpt2", "nf4"))
