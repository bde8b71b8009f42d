"""What llama.cpp and Ollama accept, and the way there: `export --to gguf`.

Both read an adapter as one GGUF file; the export folds every scaling, so rules on scalings hold.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from adapterhub.domain.destination import AdapterFacts, AdapterSource, BaseSource, Finding
from adapterhub_plugins.destinations import rules
from adapterhub_plugins.destinations.gguf_names import ARCHITECTURES
from adapterhub_plugins.destinations.rules import error, ok, warning

# ollama's convert/convert.go: the architectures whose safetensors adapters it can read.
_OLLAMA_SAFETENSORS = ("llama", "mistral", "gemma2")


class LlamaCpp:
    """`AdapterExporter` and `BaseExporter`, after src/llama-adapter.cpp."""

    def check(self, facts: AdapterFacts) -> Iterator[Finding]:
        yield from _gguf_rules(facts, "llama.cpp")
        if rules.is_lora(facts):
            yield warning(
                "format",
                "llama.cpp reads a GGUF file, not this folder",
                f"adapterhub export {facts.name} --to gguf -o FILE.gguf; "
                "llama-server -m BASE.gguf --lora FILE.gguf",
            )

    def export(self, source: AdapterSource, out: Path) -> Iterable[str]:
        from adapterhub_plugins.destinations.gguf_writer import write_adapter

        return write_adapter(source, out)

    def export_base(self, source: BaseSource, out: Path) -> None:
        from adapterhub_plugins.destinations.gguf_writer import write_base

        write_base(source, out)


class Ollama:
    """The same file through a Modelfile, which is safer than Ollama's own reading of a folder."""

    def check(self, facts: AdapterFacts) -> Iterator[Finding]:
        yield from _gguf_rules(facts, "Ollama")
        if not rules.is_lora(facts):
            return
        folded = facts.config.get("use_rslora") or rules.patterns(facts, "").severity != "ok"
        known = facts.family in _OLLAMA_SAFETENSORS
        reason = (
            "of a folder Ollama reads lora_alpha alone, not use_rslora and no pattern"
            if folded
            else f"Ollama reads folders for {', '.join(_OLLAMA_SAFETENSORS)} bases alone"
            if not known
            else "Ollama would convert the folder by itself, which was not checked here"
        )
        yield warning(
            "format",
            reason,
            f"adapterhub export {facts.name} --to gguf -o FILE.gguf; then a Modelfile with FROM "
            "BASE and ADAPTER ./FILE.gguf",
        )


def _gguf_rules(facts: AdapterFacts, who: str) -> Iterator[Finding]:
    yield rules.method(facts, who)
    if not rules.is_lora(facts):
        return
    yield rules.variant(facts, who)
    yield _architecture(facts)
    yield ok("rank", "no limit, and each module may have its own")
    yield rules.dora(facts, "an adapter in GGUF is A, B and alpha: nothing holds a magnitude")
    yield rules.saved(facts, "an adapter in GGUF holds A and B alone")
    yield rules.tokens(facts, "a GGUF adapter cannot grow the vocabulary of its base")
    yield rules.bias(facts, "an adapter in GGUF holds no bias")
    yield ok("scaling", "rsLoRA and patterns: the export folds them into B")
    yield rules.blocks_only(
        facts, "a tied head is left out and embeddings are stored transposed, so neither is written"
    )
    yield rules.layout(facts, who)
    yield rules.dtype(facts, who)


def _architecture(facts: AdapterFacts) -> Finding:
    if facts.family is None:
        return warning(
            "architecture",
            "the adapter does not say of which family its base is; its names depend on that",
            "name the base: --base NAME",
        )
    if facts.family not in ARCHITECTURES:
        return error(
            "architecture",
            f"how llama.cpp names the layers of a {facts.family} base is not known here",
            f"known: {', '.join(sorted(ARCHITECTURES))}",
        )
    return ok("architecture", f"{ARCHITECTURES[facts.family].name}, which must be the base's too")
