"""Adapters whose modules weigh differently answer, attached, as what is merged at those weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from adapterhub.compose.executor import merge
from adapterhub.compose.members import outline
from adapterhub.compose.plan import make_plan
from adapterhub.domain.composition import PinnedComposition, PinnedTerm
from adapterhub.domain.engines import ScoreRequest
from adapterhub.domain.evaluation import Message
from adapterhub.domain.manifest import BaseRecord, Manifest
from adapterhub.domain.match import record_of
from adapterhub.domain.refs import Ref
from adapterhub.domain.scales import ModuleWeights, Scales
from adapterhub.errors import AdapterhubError, CapabilityError, UsageError
from adapterhub.formats.adapter_config import encode_config
from adapterhub.formats.composition_file import encode_composition
from adapterhub.formats.manifest import encode_manifest
from adapterhub.models.loader import Base
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.runtime.engine import open_engine
from adapterhub.runtime.resolve import Fetched, named_in, resolve_subject
from adapterhub.runtime.subjects import Subject, attach_subject, slot_of, weights_on
from adapterhub.testing import plain
from adapterhub.testing.ground import agree, apart
from adapterhub.testing.practice import shake
from adapterhub.testing.tiny import add_tiny_base

pytestmark = pytest.mark.models

MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {"rank": 2}),
    "other": ("lora", {"rank": 3}),
    "dora": ("lora", {"rank": 2, "dora": True}),
    "bottleneck": ("bottleneck", {"reduction": 8, "placement": "houlsby"}),
    "ia3": ("ia3", {}),
    "prompt_tuning": ("prompt_tuning", {"tokens": 3}),
    "prompt_design": ("prompt_design", {"system": "Spell it backwards."}),
}


def nowhere(ref: Ref) -> Fetched:
    raise AssertionError(f"{ref} was fetched")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, home: Path) -> dict[str, str]:
    """Folders of adapters as training would leave them."""
    from safetensors.torch import save_file

    base = add_tiny_base("llama", "bf16", home)
    place, found = tmp_path_factory.mktemp("shelf"), {}
    for seed, (name, (method, options)) in enumerate(MADE.items()):
        config = method_of(method).new_config(base.spec, options)
        adapter = Rack(base).attach_fresh("made", method, config, seed=seed)
        shake(adapter, seed=seed, size=0.05)
        folder = place / name
        folder.mkdir()
        record = catalog().methods[method]
        manifest = Manifest(
            method=method, config_version=record.config_version, base=record_of(base.spec)
        )
        (folder / "adapterhub.json").write_bytes(encode_manifest(manifest))
        (folder / "adapter_config.json").write_bytes(encode_config(adapter.config))
        if record.tensors:
            save_file(adapter.state(), folder / "adapter_model.safetensors", {"format": "pt"})
        adapter.detach()
        found[name] = str(folder)
    return found


def scaled(shelf: Mapping[str, str], text: str, **scales: Scales) -> Subject:
    """`text` by the names on the shelf."""
    named = "+".join(
        f"{weight}{star}{shelf[name]}"
        for weight, star, name in (term.rpartition("*") for term in text.split("+"))
    )
    return resolve_subject(named, nowhere, scales={shelf[n]: s for n, s in scales.items()})


def answers(base: Base, subject: Subject) -> Any:
    rack = Rack(base)
    rack.activate(attach_subject(rack, subject), sequential=subject.sequential)
    return plain.logits_of(base.model)


PLAIN: Scales = {"layers.0": 0.5, "self_attn": -0.5, "q_proj": 0.0}


@pytest.mark.parametrize("strategy", ["linear", "svd"])
def test_attached_and_merged_answer_alike(
    strategy: str, shelf: Mapping[str, str], base: Base, home: Path, tmp_path: Path
) -> None:
    subject = scaled(shelf, "0.7*lora+other", lora=PLAIN, other={"layers.1": 0.0, "mlp": 0.25})
    plan = make_plan(
        [outline(member) for member in subject.members], strategy=catalog().strategies[strategy]
    )
    # At the rank of the sum, the best approximation is the sum.
    if strategy == "svd":
        plan = make_plan(
            [outline(m) for m in subject.members],
            strategy=catalog().strategies["svd"],
            rank=max(sum(part.rank for part in step.parts) for step in plan.steps),
        )
    merged = merge(subject.members, plan, tmp_path / "merged").folder
    attached = answers(base, subject)
    again = answers(add_tiny_base("llama", "bf16", home), resolve_subject(str(merged), nowhere))
    whole = answers(add_tiny_base("llama", "bf16", home), scaled(shelf, "0.7*lora+other"))
    agree(attached, again, within=1e-4, what="attached and merged")
    assert apart(attached, whole) > 1e-2


@pytest.mark.parametrize(
    ("text", "scales"),
    [
        ("lora", {"lora": PLAIN}),
        ("2*bottleneck", {"bottleneck": {"layers.0": 0.5, "self_attn": 0.0}}),
        ("ia3", {"ia3": {"layers.1": 0.0, "k_proj": 0.5}}),
        ("dora", {"dora": {"layers.1": 0.0}}),
        ("0.5*lora+bottleneck+ia3", {"lora": PLAIN, "bottleneck": {"mlp": -1.5}}),
    ],
)
def test_each_module_has_what_it_weighs_of_its_patch(
    text: str, scales: Mapping[str, Scales], shelf: Mapping[str, str], base: Base, home: Path
) -> None:
    subject = scaled(shelf, text, **scales)
    other = add_tiny_base("llama", "bf16", home)
    parts: list[tuple[list[tuple[str, Any]], float]] = []
    for member in subject.members:
        method = method_of(member.folder.manifest.method)
        state = Rack(other).attach(slot_of(member), member.folder).state()
        patches = list(method.patches(member.folder.config or {}, state, base))
        weights: Mapping[str, float] = dict.fromkeys((n for n, _ in patches), member.weight)
        if member.scales:
            weights = weights_on(base, member)
        parts += [([(name, patch)], weights[name]) for name, patch in patches]
    assert {weight for _, weight in parts} != {1.0}
    bare = add_tiny_base("llama", "bf16", home)
    agree(
        answers(base, subject),
        plain.answers(bare.model, parts),
        within=1e-4,
        what="attached and patches",
    )


def asked(**more: Any) -> ScoreRequest:
    return ScoreRequest(messages=(Message(role="user", content="2 + 2"),), answer="4", **more)


def test_one_adapter_in_one_slot_answers_whole_and_scaled_in_one_batch(
    shelf: Mapping[str, str], base: Base
) -> None:
    engine = open_engine(base)
    whole, half = scaled(shelf, "lora"), scaled(shelf, "lora", lora=PLAIN)
    slots = [attach_subject(engine.rack, subject) for subject in (whole, half)]
    assert [slot for slot, _ in slots[0]] == [slot for slot, _ in slots[1]]
    assert isinstance(slots[1][0][1], ModuleWeights)
    alone = [engine.score([asked(slots=own)])[0].logprobs for own in (*slots, ())]
    mixed = engine.score([asked(slots=own) for own in (*slots, (), *slots)])
    assert alone[0] != pytest.approx(alone[1], abs=1e-4)
    for found, wanted in zip(mixed, (*alone, *alone[:2]), strict=True):
        assert found.logprobs == pytest.approx(wanted, abs=1e-5)


def test_in_a_sequence_a_member_is_scaled_as_well(
    shelf: Mapping[str, str], base: Base, home: Path, tmp_path: Path
) -> None:
    def line(scales: Scales | None) -> Subject:
        terms = tuple(
            PinnedTerm(ref=m.ref, weight=1.0, sha256=m.sha256, scales=own)
            for m, own in zip(scaled(shelf, "lora+other").members, (scales, None), strict=True)
        )
        pinned = PinnedComposition(
            base=BaseRecord(id="acme/tiny"), terms=terms, strategy="sequential"
        )
        (tmp_path / "line.toml").write_bytes(encode_composition(pinned))
        return resolve_subject(str(tmp_path / "line.toml"), nowhere)

    whole = answers(add_tiny_base("llama", "bf16", home), line(None))
    assert apart(answers(base, line({"layers.0": 0.0})), whole) > 1e-3
    scales = {str(tmp_path / "line.toml"): {"mlp": 0.5}}
    with pytest.raises(CapabilityError, match="is a sequence and has no scale of its own"):
        resolve_subject(str(tmp_path / "line.toml"), nowhere, scales=scales)


def test_scales_of_a_composition_are_those_of_all_its_members(
    shelf: Mapping[str, str], tmp_path: Path
) -> None:
    both = scaled(shelf, "lora+other", lora={"mlp": 0.5})
    pinned = PinnedComposition(
        base=BaseRecord(id="acme/tiny"),
        terms=tuple(
            PinnedTerm(ref=m.ref, weight=2.0, sha256=m.sha256, scales=m.scales or None)
            for m in both.members
        ),
    )
    path = tmp_path / "both.toml"
    path.write_bytes(encode_composition(pinned))
    found = resolve_subject(str(path), nowhere, scales={str(path): {"mlp": 0.5, "layers.0": 0.0}})
    assert [member.scales for member in found.members] == [
        {"mlp": 0.25, "layers.0": 0.0},
        {"mlp": 0.5, "layers.0": 0.0},
    ]
    assert not found.single
    assert found.title.startswith(f"{path} ({shelf['lora']}: mlp x 0.25, layers.0 x 0; ")
    assert [term.ref for term in named_in(f"{path}")] == [str(path)]
    assert [(t.ref, t.weight) for t in named_in("0.5*a/b+c/d")] == [("a/b", 0.5), ("c/d", 1.0)]


Refusal = tuple[str, str, Scales, type[AdapterhubError], str]
REFUSED: Sequence[Refusal] = [
    (
        "prompt_tuning",
        "prompt_tuning",
        {"*": 1.0},
        CapabilityError,
        "prompt_tuning gives no module",
    ),
    (
        "prompt_design",
        "lora+prompt_design",
        {"mlp": 1.0},
        CapabilityError,
        "prompt_design gives no",
    ),
    ("lora", "lora", {"mpl": 0.5}, UsageError, "mpl is about no module of"),
    ("lora", "lora", {"layers.7-9": 0.5}, UsageError, "layers.7-9 is about no module of"),
    ("ia3", "ia3", {"o_proj": 0.5}, UsageError, "o_proj is about no module of"),
    ("bottleneck", "lora+bottleneck", {"up_proj": 0}, UsageError, "up_proj is about no module of"),
    ("bottleneck", "bottleneck", {"*": 0}, UsageError, "is scaled by 0"),
    ("dora", "dora", {"layers.0": 0.5}, CapabilityError, r"layers\.0 x 0\.5\): a DoRA adapter"),
]


@pytest.mark.parametrize("case", REFUSED, ids=[f"{r[1]}-{next(iter(r[2]))}" for r in REFUSED])
def test_scales_that_mean_nothing_are_refused_by_name_when_attaching(
    case: Refusal, shelf: Mapping[str, str], base: Base
) -> None:
    name, text, scales, kind, fact = case
    with pytest.raises(kind, match=fact) as caught:
        attach_subject(Rack(base), scaled(shelf, text, **{name: scales}))
    assert shelf[name] in caught.value.message
    assert caught.value.hint
