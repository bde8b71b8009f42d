"""Promises of the lines that `show` puts on the screen, over small folders made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adapterhub.domain.base import Fingerprint
from adapterhub.domain.manifest import BaseRecord, Manifest, Parent, Result
from adapterhub.domain.probe import Environment, Position, Probe
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.formats.manifest import encode_manifest
from adapterhub.hub.folder import adapter_digest, read_folder
from tests.adapter_files import write_lora
from tests.command_line import CommandLine

SHA = "0f" * 32
BASE = BaseRecord(
    id="acme/tiny",
    revision="0" * 40,
    family="llama",
    fingerprint=Fingerprint(layout="1" * 64, sketch="2" * 64, content="3" * 64),
    scheme=scheme_by_name("nf4"),
)
TRAINED = Manifest(
    method="lora",
    config_version=1,
    base=BASE,
    trainer="sft",
    recipe={
        "data": "dates.jsonl",
        "steps_done": 60,
        "batch_size": 8,
        "learning_rate": 0.002,
        "eval_loss": 0.25,
    },
    data_sha256="3f9c1e2a4b5d" + "0" * 52,
    results=(Result(task="iso", metric="exact", score=0.9, base_score=0.1, n=40, task_digest=SHA),),
    written_by="adapterhub 1.0",
)


def lines(run: CommandLine, manifest: Manifest | None) -> list[str]:
    """What `show` says of a LoRA with this manifest."""
    assert run.cwd is not None
    folder = write_lora(run.cwd / "one")
    if manifest is not None:
        (folder / "adapterhub.json").write_bytes(encode_manifest(manifest))
    return [line.strip() for line in run.ok("show", "./one").out.splitlines()]


def line(said: list[str], label: str) -> str:
    """The one line of a label."""
    found = [text for text in said if text.startswith(f"{label} ")]
    assert len(found) == 1, said
    return found[0].removeprefix(label).strip()


def test_the_first_line_names_method_rank_and_size(adapterhub: CommandLine) -> None:
    first = lines(adapterhub, None)[0]
    assert first.startswith("./one   lora r=2 · ")
    assert first.endswith((" kB", " B"))


def test_a_base_that_is_not_here_comes_with_the_command_that_adds_it(
    adapterhub: CommandLine,
) -> None:
    said = lines(adapterhub, TRAINED)
    scheme = "nf4 (block 64, double quantization)"
    assert line(said, "base") == f"acme/tiny@000000000000 · trained on {scheme}"
    assert line(said, "have it?") == "no; adapterhub base add NAME acme/tiny"


@pytest.mark.parametrize(
    ("record", "verdict"),
    [
        (BASE, "yes, as tiny: the same base, byte for byte"),
        (
            replace(BASE, fingerprint=None),
            "yes, as tiny: of the same name; nothing more is known of it",
        ),
    ],
)
def test_a_base_that_is_here_is_named_with_how_sure_that_is(
    adapterhub: CommandLine, named_base: str, record: BaseRecord, verdict: str
) -> None:
    assert line(lines(adapterhub, replace(TRAINED, base=record)), "have it?") == verdict


def test_a_base_of_other_weights_is_not_taken_for_its_own(
    adapterhub: CommandLine, named_base: str
) -> None:
    other = Fingerprint(layout="1" * 64, sketch="8" * 64, content="9" * 64)
    said = lines(adapterhub, replace(TRAINED, base=replace(BASE, id="a/b", fingerprint=other)))
    assert "have it?  no; adapterhub base add NAME a/b" in said
    assert "have it?  not as tiny: of the same shape with other weights" in said


def test_what_it_was_trained_on_and_how_it_did_is_told(adapterhub: CommandLine) -> None:
    said = lines(adapterhub, TRAINED)
    assert line(said, "made by") == "sft, 60 steps · adapterhub 1.0"
    assert line(said, "trained") == (
        "on dates.jsonl (sha256 3f9c1e2a4b5d) · 8 rows a step · rate 0.002 · "
        "loss on other rows 0.250"
    )
    assert line(said, "result") == "iso exact: 0.9 (base 0.1, 40 items)"


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ("to-fused", "converted for a base with fused layers"),
        ("to-split", "converted for a base with split layers"),
        ("canonical", "converted to plain factors, scaled by 1"),
        ("ties", "stacking (ties)"),
    ],
)
def test_what_was_made_of_other_adapters_says_how(
    adapterhub: CommandLine, strategy: str, words: str
) -> None:
    derived = Manifest(
        method="lora",
        config_version=1,
        base=BASE,
        parents=(Parent(ref="acme/a", weight=0.5, sha256=SHA),),
        strategy=strategy,
        written_by="adapterhub 1.0",
    )
    said = lines(adapterhub, derived)
    assert line(said, "made by") == f"{words} · adapterhub 1.0"
    assert line(said, "parent") == "0.5 * acme/a (0f0f0f0f0f0f)"


def test_an_adapter_without_a_manifest_is_called_unknown(adapterhub: CommandLine) -> None:
    said = lines(adapterhub, None)
    assert line(said, "made by").startswith("unknown: there is no adapterhub.json")
    assert line(said, "base") == "acme/tiny · trained on an unknown precision"
    assert "measures it" in line(said, "effect")


def test_its_effect_is_told_as_it_was_measured(adapterhub: CommandLine, tmp_path: Path) -> None:
    folder = write_lora(tmp_path / "one")
    probe = Probe(
        prompts="p",
        adapter=adapter_digest(folder, read_folder(folder).config),
        tensors=4,
        bound=4,
        relative=0.123,
        norms={"model.layers.0.self_attn.q_proj": 1.0},
        positions=(Position(tokens=(1,), without=(0.5,), having=(0.75,)),),
        environment=Environment(
            base="3" * 64,
            scheme=scheme_by_name("int8"),
            dtype="float32",
            device="cpu",
            torch="2",
            transformers="5",
        ),
    )
    said = lines(adapterhub, replace(TRAINED, probe=probe))
    assert line(said, "effect").startswith("logits change by 12.3% on int8; verify --base NAME")


def test_switched_off_checks_and_problems_are_told(adapterhub: CommandLine) -> None:
    said = lines(adapterhub, replace(TRAINED, allowed=("wrong-base",), method="dora"))
    assert line(said, "allowed") == "its maker switched off: wrong-base"
    assert any(text.startswith("! ") for text in said), said
