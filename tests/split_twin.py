"""A Phi-3 with its fused layers apart: a Mistral of the same weights, which answers the same.

Test equipment.
"""

from __future__ import annotations

from typing import Any


def split_twin(model: Any) -> Any:
    """Rows of qkv_proj are those of q_proj, k_proj and v_proj, of gate_up_proj gate_proj's and
    up_proj's; all else has the same name in both families."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    config = model.config
    shared = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "rms_norm_eps",
        "num_attention_heads", "num_key_value_heads", "max_position_embeddings", "sliding_window",
        "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings",
    )  # fmt: skip
    own = MistralConfig(
        **{key: getattr(config, key) for key in shared},
        rope_parameters={
            "rope_type": "default",
            "rope_theta": config.rope_parameters["rope_theta"],
        },
    )
    width = config.hidden_size // config.num_attention_heads
    keys = width * config.num_key_value_heads
    state: dict[str, Any] = {}
    for name, tensor in model.state_dict().items():
        if "qkv_proj" in name:
            queries = len(tensor) - 2 * keys
            parts = zip("qkv", tensor.split([queries, keys, keys]), strict=True)
            state |= {name.replace("qkv_proj", f"{part}_proj"): rows for part, rows in parts}
        elif "gate_up_proj" in name:
            halves = zip(("gate", "up"), tensor.chunk(2), strict=True)
            state |= {name.replace("gate_up_proj", f"{part}_proj"): rows for part, rows in halves}
        else:
            state[name] = tensor
    with torch.device("meta"):
        twin = MistralForCausalLM(own)
    twin = twin.to(model.dtype).to_empty(device=model.device)
    twin.load_state_dict(state)
    # What is no parameter, the frequencies of the rotary embedding, was not made either.
    twin.model.rotary_emb = type(twin.model.rotary_emb)(own).to(model.device)
    twin.generation_config = model.generation_config
    return twin.eval()
