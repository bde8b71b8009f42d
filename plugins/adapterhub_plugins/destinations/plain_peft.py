"""A plain PEFT folder: what `PeftModel.from_pretrained` and everything built on it reads.

Files are copied as they are. What only adapterhub reads stays behind, and is named.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from adapterhub.domain.destination import AdapterFacts, AdapterSource, Finding
from adapterhub.domain.manifest import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from adapterhub_plugins.destinations import rules
from adapterhub_plugins.destinations.rules import error, ok, warning

# Files beside the two that transformers reads for a tokenizer which the training changed.
_SIDE_FILES = (
    "added_tokens.json", "chat_template.jinja", "special_tokens_map.json", "tokenizer.json",
    "tokenizer.model", "tokenizer_config.json",
)  # fmt: skip


class Peft:
    """`adapterhub.domain.destination.AdapterExporter`."""

    def check(self, facts: AdapterFacts) -> Iterator[Finding]:
        yield self._method(facts)
        if not facts.config.get("peft_type"):
            return
        yield self._base(facts)
        if rules.is_lora(facts):
            yield rules.layout(facts, "peft")
            yield rules.dtype(facts, "peft")

    def _method(self, facts: AdapterFacts) -> Finding:
        kind = facts.config.get("peft_type")
        if not kind:
            return error(
                "method",
                f"{facts.method} is no method of peft, so nothing but adapterhub reads it",
                f"use it with adapterhub run {facts.name}, or train a method of peft",
            )
        return ok("method", f"peft knows {kind}")

    def _base(self, facts: AdapterFacts) -> Finding:
        named = str(facts.config.get("base_model_name_or_path") or "")
        if named.count("/") == 1 and not named.startswith((".", "/", "~")):
            return ok("base", f"its config names {named}")
        return warning(
            "base",
            f"its config names {named or 'no base'}, no hub id, so AutoPeftModel cannot find it",
            "load the base yourself and give it to PeftModel.from_pretrained",
        )

    def export(self, source: AdapterSource, out: Path) -> list[str]:
        out.mkdir()
        kept = {CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, *_SIDE_FILES} & set(source.facts.files)
        for name in sorted(kept):
            shutil.copyfile(source.folder / name, out / name)
        left = sorted(set(source.facts.files) - kept)
        return [f"left behind, since only adapterhub reads them: {', '.join(left)}"] * bool(left)
