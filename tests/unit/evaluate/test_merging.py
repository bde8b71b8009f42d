"""A whole merge: what is written is measured as written, and a merge that fails leaves nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from adapterhub.domain.evaluation import Item, Message, TaskData
from adapterhub.domain.refs import Ref
from adapterhub.domain.scales import Scales
from adapterhub.errors import AdapterhubError, CapabilityError, DataError, UsageError
from adapterhub.evaluate.merge_loss import Text, recorded_tasks
from adapterhub.evaluate.merging import Order, Outcome, merge_model
from adapterhub.formats.manifest import decode_manifest
from adapterhub.hub.home import bases_dir
from adapterhub.models.bases import find_base
from adapterhub.models.loader import load_base
from adapterhub.models.quiet import quiet
from adapterhub.runtime.attach import method_of
from adapterhub.runtime.resolve import Fetched, resolve_subject
from adapterhub.runtime.subjects import Subject
from adapterhub.testing import plain
from adapterhub.testing.ground import apart
from adapterhub.testing.practice import shake
from adapterhub.testing.tiny import add_tiny_base, temporary_home
from tests.plugins.plain_peft import write_folder

pytestmark = pytest.mark.models

TASK = TaskData(
    name="rows",
    items=(Item(messages=(Message(role="user", content="abc"),), answer="def"),),
    digest="0" * 64,
)
MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "lora": ("lora", {"rank": 4}),
    "dora": ("lora", {"rank": 4, "dora": True}),
    "bottleneck": ("bottleneck", {}),
    "prompt": ("prompt_tuning", {}),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with one base in two precisions, and adapters for it."""
    place = tmp_path_factory.mktemp("place")
    with temporary_home(place / "home") as home:
        for scheme in ("bf16", "nf4"):
            base = add_tiny_base("llama", scheme, home, name=scheme)
        for name, (method, options) in MADE.items():
            made = method_of(method)
            with quiet():
                adapter = made.attach(base, name, made.new_config(base.spec, options))
            shake(adapter, size=0.02)
            write_folder(adapter, place / name)
            adapter.detach()
        yield place


@pytest.fixture
def order(place: Path, tmp_path: Path) -> Callable[..., Order]:
    def make(
        text: str,
        base: str = "bf16",
        into: str = "bf16",
        scales: Mapping[str, Scales] = MappingProxyType({}),
        **more: Any,
    ) -> Order:
        named = "+".join(
            f"{weight}{star}{place / name}"
            for weight, star, name in (term.rpartition("*") for term in text.split("+"))
        )
        facts = {"out": tmp_path / "out", "device": "cpu", **more}
        asked = {str(place / name): own for name, own in scales.items()}
        return Order(subject=subject(named, asked), base=find_base(base), into=into, **facts)

    return make


def subject(text: str, scales: Mapping[str, Scales] = MappingProxyType({})) -> Subject:
    def fetch(ref: Ref) -> Fetched:
        raise AssertionError(f"{ref} is no folder")

    return resolve_subject(text, fetch, scales=scales)


def by_form(made: Outcome) -> dict[str, Any]:
    return {form.name: form for form in made.forms}


def test_two_adapters_of_a_4_bit_base_are_measured_in_three_forms(
    order: Callable[..., Order], tmp_path: Path
) -> None:
    text = Text(name="text", content="All that is gold does not glitter. " * 30)
    wanted = order("0.5*lora+dora", "nf4", "nf4", name="both", tasks=(TASK,), texts=(text,))
    made = merge_model(wanted)
    forms = by_form(made)
    assert list(forms) == ["attached", "merged, bf16", "merged, then nf4"]
    attached, plain_form, quantized = forms.values()
    assert (attached.drift, attached.cosine, attached.strength) == (0.0, 1.0, 1.0)
    assert 0 < plain_form.drift < 0.02 < quantized.drift
    assert plain_form.cosine > 0.99 > quantized.cosine
    assert (plain_form.holds, attached.holds) == (True, True)
    for form in forms.values():
        assert list(form.perplexity) == ["rows", "text"]
    assert attached.perplexity["text"] == pytest.approx(plain_form.perplexity["text"], rel=0.01)
    stored = decode_manifest((tmp_path / "out" / "adapterhub.json").read_bytes())
    assert [parent.weight for parent in stored.parents] == [0.5, 1.0]
    assert stored.recipe is not None
    assert [form["form"] for form in stored.recipe["measured"]] == list(forms)
    assert "| merged, then nf4 |" in (tmp_path / "out" / "README.md").read_text()
    kept = find_base("both")
    assert (kept.id, kept.scheme.name, kept.family) == ("both", "nf4", "llama")
    assert kept.fingerprint.content != find_base("nf4").fingerprint.content
    assert "these bits stand for" in (kept.note or "")
    again = load_base(kept, device="cpu", dense=True)
    assert plain.logits_of(again.model).isfinite().all()


def test_modules_that_weigh_differently_are_merged_as_they_are_attached(
    order: Callable[..., Order], tmp_path: Path
) -> None:
    scales = {"lora": {"layers.0": -2.0, "mlp": 0.0, "q_proj": 0.5}, "dora": {"layers.1": 0.0}}
    forms = by_form(merge_model(order("lora+dora", into="float32", scales=scales)))
    assert forms["merged, float32"].drift < 1e-4
    assert forms["merged, float32"].holds
    stored = decode_manifest((tmp_path / "out" / "adapterhub.json").read_bytes())
    assert [parent.scales for parent in stored.parents] == list(scales.values())


def test_what_is_measured_is_what_was_written(order: Callable[..., Order], tmp_path: Path) -> None:
    """Bytes that change once they are written are not taken for what was to be written."""
    from safetensors.torch import load_file, save_file

    spoiled = []

    def spoil(said: str) -> None:
        if said.startswith("measuring what was written"):
            (file,) = tmp_path.glob(".out.*.part/out/model.safetensors")
            tensors = load_file(file)
            tensors["lm_head.weight"] *= 0.5
            save_file(tensors, file, metadata={"format": "pt"})
            spoiled.append(said)

    form = by_form(merge_model(order("lora"), say=spoil))["merged, bf16"]
    assert spoiled == ["measuring what was written: merged, bf16"]
    assert form.drift == pytest.approx(0.5, abs=0.02)
    assert not form.holds


def test_a_bf16_base_is_kept_under_its_name(order: Callable[..., Order], tmp_path: Path) -> None:
    made = merge_model(order("lora", name="warm", out=None, measure=False))
    assert (made.forms, made.places) == ((), (bases_dir() / "warm",))
    base = load_base(find_base("warm"), device="cpu")
    before = load_base(find_base("bf16"), device="cpu")
    assert apart(plain.logits_of(base.model), plain.logits_of(before.model)) > 1e-3


@pytest.mark.parametrize(
    ("text", "more", "refusal"),
    [
        (
            "bottleneck",
            {},
            (CapabilityError, "is a bottleneck adapter, and what bottleneck does is no change"),
        ),
        ("lora+prompt", {}, (CapabilityError, "is a prompt_tuning adapter")),
        ("0.5*dora", {}, (CapabilityError, "no weight but 1 means anything")),
        ("lora", {"out": None}, (UsageError, "it is not said where the model goes")),
        ("lora", {"name": "bf16"}, (UsageError, "a base called 'bf16' is already here")),
        ("lora", {"name": "llama-0"}, (UsageError, "is what the base itself is known by")),
        ("lora", {"name": "x", "into": "fp16"}, (UsageError, "no base is kept in fp16")),
        ("lora", {"texts": (Text(name="t", content="a"),)}, (DataError, "too little text")),
    ],
)
def test_what_cannot_be_merged_is_refused_and_leaves_nothing(
    text: str,
    more: dict[str, Any],
    refusal: tuple[type[AdapterhubError], str],
    order: Callable[..., Order],
    tmp_path: Path,
) -> None:
    error, said = refusal
    before = sorted(bases_dir().iterdir())
    with pytest.raises(error) as caught:
        merge_model(order(text, **more))
    assert said in caught.value.message
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []
    assert sorted(bases_dir().iterdir()) == before


@pytest.mark.parametrize("into", ["bf16", "nf4"])
def test_a_merge_that_is_interrupted_leaves_nothing(
    into: str, order: Callable[..., Order], tmp_path: Path
) -> None:
    def stop(done: int, total: int) -> None:
        assert list(tmp_path.iterdir())
        if 2 * done > total:
            raise KeyboardInterrupt

    before = sorted(bases_dir().iterdir())
    with pytest.raises(KeyboardInterrupt):
        merge_model(order("lora", into=into, name="half"), on_tensor=stop)
    assert list(tmp_path.iterdir()) == []
    assert sorted(bases_dir().iterdir()) == before


def test_a_folder_that_is_there_is_left_as_it_is(
    order: Callable[..., Order], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="already there"):
        merge_model(order("lora"))
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_tasks_are_those_that_the_members_were_trained_on(order: Callable[..., Order]) -> None:
    from dataclasses import replace

    member = order("lora").subject.members[0]

    def trained(data: str) -> Any:
        manifest = replace(member.folder.manifest, recipe={"data": data})
        return replace(member, folder=replace(member.folder, manifest=manifest))

    members = [trained("iso-dates"), trained("rows.jsonl"), trained("iso-dates"), member]
    found = recorded_tasks(members, limit=3)
    assert [(task.name, len(task.items)) for task in found] == [("iso-dates", 3)]
