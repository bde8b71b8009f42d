"""Faults of configs, of what goes with an adapter, and of the base it is put on."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import Any

import torch

from adapterhub.formats.manifest import decode_manifest, encode_manifest
from tests.faults.draft import Draft, Tensors, module
from tests.faults.fault import Fault

MAGNITUDE = "lora_magnitude_vector"
NEW_TOKEN = 263  # one past the tiny bases' vocabulary
CHANGED = "changed after its probe|points elsewhere|times as large"
MISSING_PARENT = """\
strategy = "linear"

[base]
id = "acme/tiny-llama"

[[terms]]
ref = "../nowhere"
weight = 1.0
sha256 = "{digest}"
"""


def written(draft: Draft, key: str, text: str) -> None:
    """A value that json.dumps would not write, or a second one."""
    stored = json.dumps(draft.read_config())
    draft.config_text(f'{stored[:-1]}, "{key}": {text}}}')


def number(draft: Draft, key: str, text: str) -> None:
    config = draft.read_config()
    config.pop(key)
    draft.config_text(f'{json.dumps(config)[:-1]}, "{key}": {text}}}')


def rotated(found: Tensors) -> Tensors:
    """Each layer has what the other one learnt."""
    swap = {"layers.0": "layers.1", "layers.1": "layers.0"}
    made = {}
    for name, tensor in found.items():
        layer = next(layer for layer in swap if layer in name)
        made[name.replace(layer, swap[layer])] = tensor
    return made


def no_magnitude(found: Tensors) -> Tensors:
    return {name: t for name, t in found.items() if MAGNITUDE not in name}


def other_weights(draft: Draft) -> None:
    shutil.copy(draft.folder.parent / "source-second" / draft.weights.name, draft.weights)


def other_manifest(draft: Draft) -> None:
    source = draft.folder.parent / "source-ia3"
    shutil.copy(source / "adapterhub.json", draft.folder / "adapterhub.json")


def more_tokens(draft: Draft) -> None:
    (draft.folder / "added_tokens.json").write_text(json.dumps({"<|new|>": NEW_TOKEN}))


def own_template(draft: Draft) -> None:
    (draft.folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")


def missing_parent(draft: Draft) -> None:
    for item in draft.folder.iterdir():
        item.unlink()
    text = MISSING_PARENT.format(digest="0" * 64)
    (draft.folder / "composition.toml").write_text(text)


def forget_base(draft: Draft) -> None:
    """All that is left is the name, which these bases share."""
    file = draft.folder / "adapterhub.json"
    manifest = decode_manifest(file.read_bytes())
    base = replace(manifest.base, fingerprint=None, revision=None)
    file.write_bytes(encode_manifest(replace(manifest, base=base)))
    draft.config(revision=None)


def louder(name: str, tensor: Any) -> Any:
    return tensor * 1000 if "lora_B" in name else tensor


def one_bias(found: Tensors) -> Tensors:
    return found | {module(0, "q_proj") + ".bias": torch.ones(64)}


CONFIGS: tuple[Fault, ...] = (
    Fault(name="a rank_pattern that lies", says=r"not of the config's rank.*v_proj",
          plant=lambda d: d.config(rank_pattern={"v_proj": 2})),
    Fault(name="an alpha_pattern for no module", says="alpha_pattern.*k_proj",
          plant=lambda d: d.config(alpha_pattern={"k_proj": 64})),
    Fault(name="lora_alpha 0", says="lora_alpha", plant=lambda d: d.config(lora_alpha=0)),
    Fault(name="lora_alpha below 0", says="lora_alpha", plant=lambda d: d.config(lora_alpha=-8)),
    Fault(name="lora_alpha infinite", says="Infinity|lora_alpha",
          plant=lambda d: number(d, "lora_alpha", "Infinity")),
    Fault(name="lora_alpha 1e308", says="lora_alpha",
          plant=lambda d: number(d, "lora_alpha", "1e308")),
    Fault(name="lora_alpha NaN", says="NaN|lora_alpha",
          plant=lambda d: number(d, "lora_alpha", "NaN")),
    Fault(name="lora_alpha as text", says="lora_alpha", plant=lambda d: d.config(lora_alpha="8")),
    Fault(name="rank twice in the config", says="twice|duplicate",
          plant=lambda d: written(d, "r", "4")),
    Fault(name="rank 1e9", says="'r'", plant=lambda d: d.config(r=10**9)),
    Fault(name="another method in the config", says="IA3",
          plant=lambda d: d.config(peft_type="IA3")),
    Fault(name="no method that peft knows", says="says FUTURE",
          plant=lambda d: d.config(peft_type="FUTURE")),
    Fault(name="auto_mapping names a foreign module", says="auto_mapping.*'os'",
          plant=lambda d: d.config(auto_mapping={"parent_library": "os"})),
    Fault(name="layers_to_transform leaves a layer of the file out",
          says=r"no targets of the config.*layers\.1",
          plant=lambda d: d.config(layers_to_transform=[0])),
    Fault(name="layers_to_transform names a layer that the file lacks",
          says="layers without any weights: 5",
          plant=lambda d: d.config(layers_to_transform=[0, 1, 5])),
    Fault(name="exclude_modules excludes what the file holds", says="no targets of the config",
          plant=lambda d: d.config(exclude_modules=["v_proj"])),
    Fault(name="a target pattern that fits nothing", says="6 modules in the file are no targets",
          plant=lambda d: d.config(target_modules=r".*\.attention\.query")),
    Fault(name="a target without weights", says="targets without any weights: k_proj",
          plant=lambda d: d.config(target_modules=["q_proj", "k_proj", "v_proj", "down_proj"])),
    Fault(name="modules_to_save, and the file has none", says="modules_to_save names lm_head",
          plant=lambda d: d.config(modules_to_save=["lm_head"])),
    Fault(name="bias all, and the file has none", says="bias is .all., and the file has none",
          plant=lambda d: d.config(bias="all")),
    Fault(name="a bias in the file, and the config says none", says="no place in the config.*bias",
          plant=lambda d: d.tensors(one_bias)),
    Fault(name="a DoRA without its magnitudes", says="lack a DoRA magnitude", start="dora",
          plant=lambda d: d.tensors(no_magnitude)),
    Fault(name="a DoRA that calls itself a plain LoRA", says="DoRA magnitude.*config denies",
          start="dora", plant=lambda d: d.config(use_dora=False)),
    Fault(name="a plain LoRA that calls itself a DoRA", says="lack a DoRA magnitude",
          plant=lambda d: d.config(use_dora=True)),
    Fault(name="rsLoRA that calls itself a plain LoRA", says="times as large",
          start="rslora", plant=lambda d: d.config(use_rslora=False), probe=True),
    Fault(name="fan_in_fan_out flipped", says="fan_in_fan_out",
          plant=lambda d: d.config(fan_in_fan_out=True)),
    Fault(name="PiSSA's start, which edits the base", says="pissa",
          plant=lambda d: d.config(init_lora_weights="pissa")),
    Fault(name="two layers have each other's weights", says=CHANGED,
          plant=lambda d: d.tensors(rotated), probe=True),
    Fault(name="another adapter's weights under this config", says=CHANGED,
          plant=other_weights, probe=True),
    Fault(name="the sign of every B is flipped", says=CHANGED,
          plant=lambda d: d.each(lambda n, t: -t if "lora_B" in n else t), probe=True),
    Fault(name="every B times 1000", says=CHANGED, plant=lambda d: d.each(louder),
          probe=True),
    Fault(name="another adapter's manifest", says="the method is ia3, but .* says LORA",
          plant=other_manifest),
    Fault(name="a manifest from the future", says="schema_version",
          plant=lambda d: (d.folder / "adapterhub.json").write_text('{"schema_version": 99}')),
    Fault(name="a token that the base has no embedding for", says=r"<\|new\|>.*263|263.*<\|new\|>",
          plant=more_tokens),
    Fault(name="a chat template of its own", says="chat template", plant=own_template),
    Fault(name="a composition whose member is gone", says="nowhere", plant=missing_parent,
          use="compose"),
)  # fmt: skip

BASES: tuple[Fault, ...] = (
    Fault(name="another base of the same shape, nobody wrote down which", says="points elsewhere",
          base="stranger", plant=forget_base, probe=True),
    Fault(name="a fine-tune of the base, nobody wrote down which", says="points elsewhere",
          base="tuned", plant=forget_base, probe=True),
    Fault(name="a fine-tune of the base, by the base's name", says="as a fine-tune",
          base="tuned"),
    Fault(name="another precision than it was trained on", says="trained on bf16.*nf4",
          base="quantized"),
    Fault(name="another chat template", says="chat template is not this base's", base="retold"),
    Fault(name="another tokenizer", says="tokenizer is not this base's", base="respelt"),
    Fault(name="a fused base for an adapter of a split one", says="layers fused instead of split",
          base="fused"),
)  # fmt: skip
