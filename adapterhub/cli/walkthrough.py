"""The demo's steps: everything a person can do with adapters, once, on a real 4-bit base.

Uses the same functions as the commands; how it looks is the demo command's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from adapterhub.domain.quantization import scheme_by_name
from adapterhub.domain.recipe import Recipe
from adapterhub.domain.refs import Ref, parse_ref
from adapterhub.errors import VerificationError

if TYPE_CHECKING:
    from adapterhub.compose.executor import Merged
    from adapterhub.domain.engines import Engine, Slots
    from adapterhub.domain.evaluation import TaskData
    from adapterhub.evaluate.result import Evaluation
    from adapterhub.models.loader import Base
    from adapterhub.runtime.reference import ReferenceEngine
    from adapterhub.runtime.subjects import Subject
    from adapterhub.train.run import Trained

TASKS = ("iso-dates", "strict-json")
BASE = "smollm2"
OWNER = "demo"


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much the demo does: optimizer steps a task, and held-out items a task."""

    steps: int
    items: int


class Stage(Protocol):
    """Where the demo shows itself."""

    def chapter(self, title: str) -> None: ...
    def fact(self, text: str) -> None: ...
    def bar(
        self, title: str, total: int, unit: str
    ) -> AbstractContextManager[Callable[[int, str], None]]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """Everything the demo found."""

    evaluation: Evaluation
    trained: tuple[Trained, ...]
    merged: Merged
    picture: Path
    seconds: float
    engine: Engine
    stack_slots: Slots
    stack_name: str


def walk(home: Path, gguf: Path, size: Size, device: str | None, stage: Stage) -> Shown:
    """Run every step inside `home`, which must be the current ADAPTERHUB_HOME."""
    started = time.perf_counter()
    base = _add_base(gguf, device, stage)
    trained = tuple(_train(task, home, base, size, stage) for task in TASKS)
    _publish(trained, stage)
    engine, subjects, slots = _pull(base, stage)
    merged = _stack(subjects, home, stage)
    named = [(subject.name, own) for subject, own in zip(subjects, slots, strict=True)]
    found = _evaluate(engine, named, size, stage)
    return Shown(
        evaluation=found,
        trained=trained,
        merged=merged,
        picture=_picture(trained, home),
        seconds=time.perf_counter() - started,
        engine=engine,
        stack_slots=slots[-1],
        stack_name=subjects[-1].name,
    )


def _add_base(gguf: Path, device: str | None, stage: Stage) -> Base:
    from adapterhub.models.bases import add_base
    from adapterhub.models.loader import load_base

    stage.chapter(f"add the base {BASE} in 4 bits")
    spec = add_base(BASE, str(gguf), scheme_by_name("nf4"), say=stage.fact)
    stage.fact(f"{spec.parameters / 1e6:.0f} M parameters in {spec.stored_bytes / 1e6:.0f} MB")
    if spec.note:
        stage.fact(spec.note)
    base = load_base(spec, device=device)
    how = "a dense float32 shadow of the 4-bit values" if base.dense else "4-bit layers"
    stage.fact(f"loaded on {base.device} as {how}")
    return base


def _train(task: str, home: Path, base: Base, size: Size, stage: Stage) -> Trained:
    from adapterhub.train.loop import Step
    from adapterhub.train.run import train_adapter

    stage.chapter(f"train an adapter for {task}")
    recipe = Recipe(base=BASE, data=task, steps=size.steps, learning_rate=2e-3, options={"rank": 8})
    with stage.bar(task, size.steps, "steps") as advance:

        def on_step(step: Step) -> None:
            advance(step.number, f"loss {step.loss:.3f} · {step.tokens / step.seconds:.0f} tok/s")

        trained = train_adapter(recipe, home / "trained" / task, on_step=on_step, base=base)
    steps = trained.outcome.steps
    stage.fact(
        f"{trained.parameters:,} parameters · loss {steps[0].loss:.3f} -> {steps[-1].loss:.3f} "
        f"in {steps[-1].seconds:.0f} s"
    )
    return trained


def _publish(trained: tuple[Trained, ...], stage: Stage) -> None:
    from adapterhub.hub.client import push

    stage.chapter("publish both to the remote `local`")
    for task, run in zip(TASKS, trained, strict=True):
        pushed = push(run.folder, parse_ref(f"{OWNER}/{task}"))
        stage.fact(f"{OWNER}/{task}@{pushed.commit[:7]} · {len(pushed.files)} files")


def _pull(
    base: Base, stage: Stage
) -> tuple[ReferenceEngine, tuple[Subject, ...], tuple[Slots, ...]]:
    """Pull both into an empty cache, verify bytes and effect, and name the stack of the two."""
    from adapterhub.hub.client import pull
    from adapterhub.hub.verify import verify_folder
    from adapterhub.runtime.engine import open_engine
    from adapterhub.runtime.resolve import Fetched, resolve_subject
    from adapterhub.runtime.subjects import attach_subject, slot_of
    from adapterhub.trust.attached import judge

    stage.chapter("pull them into an empty cache and verify them")

    def fetch(ref: Ref) -> Fetched:
        found = pull(ref)
        return Fetched(folder=found.folder, commit=found.snapshot.commit, remote=found.remote.name)

    names = [f"{OWNER}/{task}" for task in TASKS]
    subjects = tuple(resolve_subject(name, fetch) for name in [*names, "+".join(names)])
    engine = open_engine(base)
    slots = tuple(attach_subject(engine.rack, subject) for subject in subjects)
    for subject in subjects[:-1]:
        report = verify_folder(subject.members[0].folder.path, base=base.spec)
        if not report.ok:
            raise VerificationError(report.problems[0].message, hint=report.problems[0].hint)
        member = subject.members[0]
        verdict = judge(engine, slot_of(member), member.folder).verdict
        verdict.refuse(subject.name, allow=())
        stage.fact(
            f"{subject.name}: digests match, {report.facts['tensors']} tensors fit, {verdict}"
        )
    return engine, subjects, slots


def _stack(subjects: tuple[Subject, ...], home: Path, stage: Stage) -> Merged:
    from adapterhub.compose.executor import merge
    from adapterhub.compose.members import outline
    from adapterhub.compose.pin import pin, write_pinned
    from adapterhub.compose.plan import make_plan
    from adapterhub.plugin.catalog import catalog

    stage.chapter("stack them")
    members = subjects[-1].members
    plan = make_plan(
        [outline(member) for member in members], strategy=catalog().strategies["linear"]
    )
    write_pinned(home / "composition.toml", pin(members, plan))
    merged = merge(members, plan, home / "stacked")
    stage.fact(
        f"{plan} · relative error {merged.relative_error:.1g} · {merged.seconds:.2f} s; "
        "attached unmerged below"
    )
    return merged


def _evaluate(
    engine: Engine, subjects: Sequence[tuple[str, Slots]], size: Size, stage: Stage
) -> Evaluation:
    from adapterhub.evaluate.runner import evaluate
    from adapterhub.evaluate.tasks.load import load_task

    stage.chapter("evaluate base, each adapter and the stack on held-out rows")
    tasks: list[TaskData] = [
        replace(load_task(task, limit=size.items), metrics=("exact_match",)) for task in TASKS
    ]
    total = (1 + len(subjects)) * sum(len(task.items) for task in tasks)
    with stage.bar("evaluating", total, "items") as advance:
        return evaluate(
            engine,
            subjects,
            tasks,
            on_progress=lambda done, _, what: advance(done, what),
        )


def _picture(trained: tuple[Trained, ...], home: Path) -> Path:
    from adapterhub.train.curve import draw_losses

    path = home / "loss.png"
    draw_losses({task: run.outcome.steps for task, run in zip(TASKS, trained, strict=True)}, path)
    return path
