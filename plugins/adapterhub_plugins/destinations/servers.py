"""What vLLM, SGLang and LoRAX accept of a PEFT folder, read from their sources and documents.

Each reason names what happens, and where a source was not found that is said.
"""

from __future__ import annotations

from collections.abc import Iterator

from adapterhub.domain.destination import AdapterFacts, Finding
from adapterhub_plugins.destinations import rules
from adapterhub_plugins.destinations.rules import error, ok, warning

# vllm/config/lora.py: MaxLoRARanks, and the default of max_lora_rank.
_VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
_VLLM_DEFAULT = 16
_LORAX_KERNEL_RANK = 128  # lorax_server/utils/sgmv.py: MAX_RANK_CUSTOM


class Vllm:
    """`adapterhub.domain.destination.DestinationRules`, after vllm/lora/peft_helper.py."""

    def check(self, facts: AdapterFacts) -> Iterator[Finding]:
        yield rules.method(facts, "vLLM")
        if not rules.is_lora(facts):
            return
        yield rules.variant(facts, "vLLM")
        yield self._rank(facts)
        yield rules.dora(facts, "vLLM refuses it: 'does not yet support DoRA'")
        yield rules.saved(
            facts, "vLLM refuses modules_to_save and any tensor that is not lora_A or lora_B"
        )
        yield self._tokens(facts)
        yield rules.bias(facts, "vLLM refuses it: 'Adapter bias is not supported'")
        yield self._rslora(facts)
        yield rules.patterns(
            facts,
            "vLLM drops rank_pattern and alpha_pattern unread and scales every module alike",
        )
        yield self._targets(facts)
        yield rules.layout(facts, "vLLM")
        yield rules.dtype(facts, "vLLM")

    def _rank(self, facts: AdapterFacts) -> Finding:
        rank = max(*rules.ranks(facts), int(facts.config.get("r", 0)))
        if rank <= _VLLM_DEFAULT:
            return ok("rank", f"{rank} is within --max-lora-rank {_VLLM_DEFAULT}, the default")
        if rank > _VLLM_RANKS[-1]:
            return error(
                "rank",
                f"{rank} exceeds {_VLLM_RANKS[-1]}, the largest --max-lora-rank",
                f"adapterhub stack {facts.name} --strategy svd --rank 256 -o DIR",
            )
        flag = next(limit for limit in _VLLM_RANKS if limit >= rank)
        return warning(
            "rank",
            f"{rank} exceeds --max-lora-rank {_VLLM_DEFAULT}, the default, and is refused by it",
            f"vllm serve {facts.base} --enable-lora --max-lora-rank {flag}",
        )

    def _tokens(self, facts: AdapterFacts) -> Finding:
        indices = facts.config.get("trainable_token_indices")
        if indices and "added_tokens.json" not in facts.files:
            lists = indices.values() if isinstance(indices, dict) else [indices]
            count = max(len(tokens) for tokens in lists)
            return warning(
                "added tokens",
                "trained token rows are refused, but by vLLM's main branch of 2026-09 with a flag",
                f"--max-lora-trainable-tokens {count}",
            )
        return rules.tokens(
            facts, "vLLM 0.12 removed --lora-extra-vocab-size: no adapter may grow the vocabulary"
        )

    def _rslora(self, facts: AdapterFacts) -> Finding:
        if not facts.config.get("use_rslora"):
            return ok("rslora", "scaled by alpha/r")
        experts = [module for module in facts.modules if ".experts." in module]
        if experts:
            return error(
                "rslora",
                "vLLM scaled the experts of a mixture by alpha/r all the same (vllm#55545)",
                f"fold it: adapterhub convert {facts.name} --canonical -o DIR",
            )
        return ok("rslora", "vLLM scales by alpha/sqrt(r) where the config says use_rslora")

    def _targets(self, facts: AdapterFacts) -> Finding:
        outside = rules.outside(facts)
        if not outside:
            return ok("targets", "linear layers of the blocks")
        return warning(
            "targets",
            f"{rules.few(outside)}: only models that list them as embedding_modules adapt these",
            "compare one answer with `adapterhub run` before you rely on it",
        )


class Sglang:
    """After python/sglang/srt/lora: lora_config.py, lora_manager.py."""

    def check(self, facts: AdapterFacts) -> Iterator[Finding]:
        yield rules.method(facts, "SGLang")
        if not rules.is_lora(facts):
            return
        yield rules.variant(facts, "SGLang")
        rank = max(rules.ranks(facts))
        yield warning(
            "rank",
            f"the memory for rank {rank} is sized at start-up, by the adapters of --lora-paths; "
            "one that is loaded later must fit into it",
            f"python -m sglang.launch_server --model-path {facts.base} --enable-lora "
            f"--max-lora-rank {rank} --lora-target-modules {' '.join(sorted(rules.leaves(facts)))}",
        )
        yield rules.dora(facts, "SGLang refuses it")
        yield rules.saved(
            facts, "nothing in SGLang's LoRA layers applies it, and no check was found that says so"
        )
        yield rules.tokens(facts, "SGLang refuses adapters that add tokens")
        yield rules.bias(facts, "nothing in SGLang's LoRA layers applies it; whether it refuses is "
                         "not known")  # fmt: skip
        yield rules.rslora(
            facts,
            "SGLang scales by alpha/r whatever use_rslora says (sglang#40835, open in 2026-09), "
            "without an error",
        )
        yield rules.patterns(
            facts, "SGLang refuses rank_pattern and alpha_pattern; before 2026-09 it ignored them"
        )
        yield rules.layout(facts, "SGLang")
        yield rules.dtype(facts, "SGLang")


class Lorax:
    """After server/lorax_server/adapters/lora.py and utils/sgmv.py."""

    def check(self, facts: AdapterFacts) -> Iterator[Finding]:
        yield rules.method(facts, "LoRAX")
        if not rules.is_lora(facts):
            return
        yield rules.variant(facts, "LoRAX")
        yield self._rank(facts)
        ignored = "LoRAX reads lora_A and lora_B alone and goes on without the rest"
        yield rules.dora(facts, ignored)
        yield rules.saved(facts, ignored)
        yield rules.tokens(facts, ignored)
        yield rules.bias(facts, ignored)
        rs = bool(facts.config.get("use_rslora"))
        yield ok("rslora", f"LoRAX scales by alpha/{'sqrt(r), as use_rslora asks' if rs else 'r'}")
        yield rules.patterns(
            facts, "LoRAX scales every module by the config's own r and lora_alpha"
        )
        yield self._blocks(facts)
        yield rules.layout(facts, "LoRAX")
        yield rules.dtype(facts, "LoRAX")

    def _rank(self, facts: AdapterFacts) -> Finding:
        rank = max(rules.ranks(facts))
        if rank <= _LORAX_KERNEL_RANK:
            return ok("rank", f"{rank}; its kernels go to {_LORAX_KERNEL_RANK}")
        return warning(
            "rank",
            f"{rank} exceeds the {_LORAX_KERNEL_RANK} of its kernels, so that each adapter of a "
            "batch is computed in turn, slowly",
            f"adapterhub stack {facts.name} --strategy svd --rank {_LORAX_KERNEL_RANK} -o DIR",
        )

    def _blocks(self, facts: AdapterFacts) -> Finding:
        uneven = rules.uneven(facts)
        if uneven:
            return error(
                "blocks",
                f"{rules.few(uneven)}: LoRAX wants a kind of layer adapted in every block and with "
                "one rank, and leaves the kind out where one block lacks it",
                "train all blocks, or serve it with another server",
            )
        return ok("blocks", "every kind of layer is adapted alike in all blocks that have any")
