"""What merging lost: a written model beside the adapters attached, both computing in float32.

Every figure is of a model loaded from the files that were written. Knows no file and no screen; how
models come into memory is the caller's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from adapterhub.compose.members import Member
from adapterhub.domain.engines import ScoreRequest, Slots
from adapterhub.domain.evaluation import TaskData
from adapterhub.errors import DataError, MismatchError
from adapterhub.evaluate.metrics import perplexity
from adapterhub.evaluate.tasks.load import load_conversations
from adapterhub.models.quiet import quiet
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.reference import ReferenceEngine
from adapterhub.trust.effect import Heard, hear
from adapterhub.trust.probe import compare, make_probe

if TYPE_CHECKING:
    from adapterhub.domain.probe import Probe

ATTACHED = "attached"
WINDOW = 512  # tokens of a text that are read at once, or the base's context where that is less


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """Running text, to be read window by window."""

    name: str
    content: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """One form of the same thing. `drift` is |its logits - those of the attached| / |those|, in L2
    norm over all positions of the probe's prompts; `cosine` and `strength` compare its effect
    (itself minus the bare base) with that of the attached, as a probe does, and `holds` says
    whether a replay of that probe would pass. `perplexity` is by the name of what was read: of a
    task its answers, of a text all tokens but a window's first."""

    name: str
    drift: float
    cosine: float
    strength: float
    holds: bool
    perplexity: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        plain = asdict(self)
        return {"form": plain.pop("name"), **plain}


@dataclass(frozen=True, kw_only=True, slots=True)
class Attached:
    """What was heard of the adapters attached, to hold other forms against."""

    heard: Heard
    probe: Probe
    form: Form


def recorded_tasks(members: Sequence[Member], *, limit: int | None = None) -> list[TaskData]:
    """Held-out rows of the tasks that the members say they were trained on, each once."""
    named = [(member.folder.manifest.recipe or {}).get("data") for member in members]
    here = catalog().tasks.entries
    names = dict.fromkeys(name for name in named if isinstance(name, str) and name in here)
    return [load_conversations(name, limit=limit) for name in names]


def measure_attached(
    engine: ReferenceEngine, slots: Slots, *, tasks: Sequence[TaskData], texts: Sequence[Text]
) -> Attached:
    """Raises MismatchError for logits that are not finite, DataError for a text without tokens."""
    heard = hear(engine, slots)
    probe = make_probe(engine.base, heard, adapter="", norms={}, tensors=0, bound=0)
    if probe is None:
        raise MismatchError(
            "with the adapters attached, the base gives NaN or infinite logits",
            hint="`adapterhub verify` checks their weights",
        )
    read = _perplexities(engine, slots, tasks=tasks, texts=texts)
    form = Form(name=ATTACHED, drift=0.0, cosine=1.0, strength=1.0, holds=True, perplexity=read)
    return Attached(heard=heard, probe=probe, form=form)


def measure_written(
    engine: ReferenceEngine,
    attached: Attached,
    name: str,
    *,
    tasks: Sequence[TaskData],
    texts: Sequence[Text],
) -> Form:
    """The model in `engine`, bare, beside what was heard of the attached adapters.

    Raises MismatchError where it gives logits that are not finite.
    """
    import torch

    found = hear(engine, ()).having
    there = attached.heard
    if not torch.isfinite(found).all():
        raise MismatchError(
            f"{name} gives NaN or infinite logits",
            hint="a wider type may hold its weights: float32",
        )
    effect = Heard(without=there.without, having=found, lengths=there.lengths)
    replay = compare(attached.probe, effect, {}, spec=engine.base.spec)
    if replay is None:
        raise TypeError("a probe of a moment ago is of other prompts")
    return Form(
        name=name,
        drift=float((found - there.having).norm() / there.having.norm()),
        cosine=replay.cosine,
        strength=replay.strength,
        holds=not replay.fault,
        perplexity=_perplexities(engine, (), tasks=tasks, texts=texts),
    )


def table_of(forms: Sequence[Form]) -> list[tuple[str, ...]]:
    """The figures as lines of text, the head first; empty for none."""
    if not forms:
        return []
    read = list(forms[0].perplexity)
    head = ("form", "drift", "cosine", "strength", *(f"perplexity, {name}" for name in read))
    return [head, *(_line(form, read) for form in forms)]


def _line(form: Form, read: Sequence[str]) -> tuple[str, ...]:
    return (
        form.name,
        f"{form.drift:.2%}" if form.drift >= 1e-4 else f"{form.drift:.1e}",
        f"{form.cosine:.4f}",
        f"{form.strength:.3f}",
        *(f"{form.perplexity[name]:.4f}" for name in read),
    )


def _perplexities(
    engine: ReferenceEngine, slots: Slots, *, tasks: Sequence[TaskData], texts: Sequence[Text]
) -> dict[str, float]:
    read = {task.name: _of_answers(engine, slots, task) for task in tasks}
    return {**read, **{text.name: _of_text(engine, slots, text) for text in texts}}


def _of_answers(engine: ReferenceEngine, slots: Slots, task: TaskData) -> float:
    requests = [
        ScoreRequest(messages=item.messages, answer=item.answer, slots=slots) for item in task.items
    ]
    scores = engine.score(requests)
    total = sum(sum(score.logprobs) for score in scores)
    return perplexity(total, sum(len(score.logprobs) for score in scores))


def _of_text(engine: ReferenceEngine, slots: Slots, text: Text) -> float:
    import torch

    base = engine.base
    ids = base.tokenizer(text.content, add_special_tokens=False, verbose=False)["input_ids"]
    width = min(base.spec.context_length or WINDOW, WINDOW)
    windows = [ids[start : start + width] for start in range(0, len(ids), width)]
    total, count = 0.0, 0
    engine.rack.activate(slots)
    for window in (window for window in windows if len(window) > 1):
        with quiet(), torch.inference_mode():
            row = torch.tensor([window], device=base.device)
            logits = base.model(input_ids=row, use_cache=False).logits[0, :-1].float()
            chosen = torch.log_softmax(logits, dim=-1).gather(1, row[0, 1:, None])
        total += float(chosen.double().sum())
        count += len(window) - 1
    if not count:
        raise DataError(
            f"{text.name} holds too little text to read: {len(ids)} tokens",
            hint="name a longer one, of a few hundred words at least",
        )
    return perplexity(total, count)
