"""Where adapters go: what vLLM, SGLang, LoRAX, llama.cpp, Ollama, MLX and peft accept, and the
formats of three of them.

`about` names what each set of rules was read from; servers change, and so do their limits.
"""

from __future__ import annotations

from collections.abc import Sequence

from adapterhub.plugin import Destination, hookimpl

_AT = "adapterhub_plugins.destinations"


@hookimpl
def adapterhub_destinations() -> Sequence[Destination]:
    return [
        Destination(
            name="vllm",
            summary="vLLM's --enable-lora",
            target=f"{_AT}.servers:Vllm",
            about="vLLM 0.22 and its main branch of 2026-09",
        ),
        Destination(
            name="sglang",
            summary="SGLang's --enable-lora",
            target=f"{_AT}.servers:Sglang",
            about="SGLang's main branch of 2026-09",
        ),
        Destination(
            name="lorax",
            summary="Predibase's LoRAX",
            target=f"{_AT}.servers:Lorax",
            about="LoRAX's main branch as of 2025",
        ),
        Destination(
            name="llama.cpp",
            summary="llama.cpp's --lora, a GGUF file",
            target=f"{_AT}.llama_cpp:LlamaCpp",
            about="llama.cpp v0.5.0",
            exports="gguf",
        ),
        Destination(
            name="ollama",
            summary="Ollama's ADAPTER, best a GGUF file",
            target=f"{_AT}.llama_cpp:Ollama",
            about="Ollama's import guide and sources of 2026",
        ),
        Destination(
            name="mlx",
            summary="mlx-lm's --adapter-path",
            target=f"{_AT}.mlx:Mlx",
            about="mlx-lm's sources of 2025",
            exports="mlx",
        ),
        Destination(
            name="peft",
            summary="PeftModel.from_pretrained, and what builds on it",
            target=f"{_AT}.plain_peft:Peft",
            about="peft 0.21",
            exports="peft",
        ),
    ]
