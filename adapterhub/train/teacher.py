"""Open a teacher, and ask it what it would say.

A teacher on the student's own base shares that base's weights in memory: it is a few more slots,
heard while the student is not. Knows bases, racks and slots; what is made of the logits is the
trainer's business.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from adapterhub.domain.engines import Slots
from adapterhub.domain.evaluation import Message
from adapterhub.domain.protocols import AttachedAdapter, ChatTokens, RewritesMessages
from adapterhub.errors import DataError, UsageError
from adapterhub.models.chat import Chat
from adapterhub.models.loader import Base, load_base
from adapterhub.models.quiet import quiet
from adapterhub.runtime.attach import Rack
from adapterhub.runtime.engine import ReferenceEngine
from adapterhub.runtime.subjects import attach_subject
from adapterhub.train.named_teacher import NamedTeacher
from adapterhub.trust.attached import check_members


def open_teacher(
    named: NamedTeacher,
    base: Base,
    rack: Rack,
    *,
    student: str,
    say: Callable[[str], None] = lambda _: None,
) -> StoredTeacher:
    """The named adapters on their base, which is loaded unless it is the student's `base`, whose
    `rack` has or will have the student in the slot `student`.

    Raises what attaching raises, and for an adapter that changes nothing, or whose effect is not
    that of its probe, NoEffectError and MismatchError, unless the teacher was named to be allowed
    it.
    """
    subject, shared = named.subject, named.shared
    mine = base if shared else load_base(named.spec, device=base.device)
    own = rack if shared else Rack(mine)
    before = frozenset(own.attached)
    with ExitStack() as undo:
        undo.callback(_detach_new, own, before)
        teacher = StoredTeacher(
            name=named.name,
            digest=named.digest,
            tokenizer=mine.tokenizer,
            vocabulary=int(mine.model.config.get_text_config().vocab_size),
            slots=attach_subject(own, subject) if subject is not None else (),
            sequential=subject is not None and subject.strategy == "sequential",
            student=student if shared else None,
            _before=before,
            _stop_ids=mine.stop_ids,
            _rack=own,
        )
        codes = _check(teacher, named, mine.chat, say)
        teacher.allowed = tuple(sorted({*named.allowed, *codes}))
        undo.pop_all()
    say(f"learning from {teacher.name}" + (", on the student's own base" if shared else ""))
    return teacher


@dataclass(kw_only=True, eq=False)
class StoredTeacher:
    """`adapterhub.domain.protocols.Teacher` over a base and the adapters in `slots`.

    Beside them, its rack holds the adapter in the slot `student`, or none: that one is silent while
    the teacher is asked, and at weight 1 again afterwards. `allowed` are the codes of what is wrong
    with the adapters and was allowed.
    """

    name: str
    digest: str
    tokenizer: Any
    vocabulary: int
    slots: Slots
    sequential: bool
    student: str | None
    _before: frozenset[str]
    _stop_ids: frozenset[int]
    _rack: Rack | None = field(repr=False)
    allowed: tuple[str, ...] = ()

    @property
    def rack(self) -> Rack:
        """Raises UsageError once the teacher was given back."""
        if self._rack is None:
            raise UsageError(
                f"the teacher {self.name} was given back", hint="open it again to ask it more"
            )
        return self._rack

    @property
    def chat(self) -> ChatTokens:
        return _TeacherChat(self, Chat(self.tokenizer, stop_ids=self._stop_ids))

    def logits(self, batch: Mapping[str, Any]) -> Any:
        import torch

        base = self.rack.base
        self._check_length(int(batch["position_ids"].max()) + 1)
        inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "position_ids")}
        here = {
            key: None if value is None else value.to(base.device) for key, value in inputs.items()
        }
        with self.answering(), quiet(), torch.no_grad():
            return base.model(
                **here, logits_to_keep=batch["columns"].to(base.device), use_cache=False
            ).logits.float()

    def _check_length(self, tokens: int) -> None:
        """The teacher's own template, and tokens of its own before the input, may make more of a
        row than the student's, whose length the run has checked."""
        limit, tokens = (
            self.rack.base.spec.context_length,
            tokens + self.rack.virtual_tokens(self.slots),
        )
        if limit and tokens > limit:
            raise DataError(
                f"a row has {tokens} tokens to the teacher {self.name}, which takes {limit}",
                hint="shorten or split the longest rows",
            )

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Within the block the base answers as the teacher, in eval mode."""
        base, heard = self.rack.base, [self.rack.attached[slot] for slot, _ in self.slots]
        with self._silent_student(), _evaluating(base.model):
            sequential, base.sequential = base.sequential, self.sequential
            try:
                for adapter, (_, weight) in zip(heard, self.slots, strict=True):
                    adapter.activate(weight)
                yield
            finally:
                for adapter in heard:
                    adapter.deactivate()
                base.sequential = sequential

    def rewritten(self, messages: Sequence[Message]) -> tuple[Message, ...]:
        """The conversation as the teacher's own adapters would have it."""
        made = tuple(messages)
        adapters = [self.rack.attached[slot] for slot, _ in self.slots]
        rewriting = [adapter for adapter in adapters if isinstance(adapter, RewritesMessages)]
        if not rewriting:
            return made
        with self.answering():
            for adapter in rewriting:
                made = adapter.messages(made)
        return made

    def close(self) -> None:
        """Take its adapters off and let go of its base; a second call does nothing."""
        if self._rack is None:
            return
        with _same_gradients(self._trained()):
            _detach_new(self._rack, self._before | ({self.student} if self.student else set()))
        self._rack = None
        # A base and its sites name each other, so that counting references does not free them.
        gc.collect()

    def _trained(self) -> AttachedAdapter | None:
        return self.rack.attached.get(self.student) if self.student is not None else None

    @contextmanager
    def _silent_student(self) -> Iterator[None]:
        student = self._trained()
        if student is None:
            yield
            return
        with _same_gradients(student):
            student.deactivate()
            try:
                yield
            finally:
                student.activate()


@dataclass(frozen=True)
class _TeacherChat:
    """The teacher's template and tokenizer, behind what its adapters make of a conversation."""

    teacher: StoredTeacher
    chat: Chat

    @property
    def tokenizer(self) -> Any:
        return self.chat.tokenizer

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        return self.chat.prompt_ids(self.teacher.rewritten(messages))

    def answer_ids(self, messages: Sequence[Message], answer: str) -> list[int]:
        return self.chat.answer_ids(self.teacher.rewritten(messages), answer)


def _check(
    teacher: StoredTeacher, named: NamedTeacher, chat: Chat, say: Callable[[str], None]
) -> tuple[str, ...]:
    """Its adapters' effect and probe; the codes that had to be allowed. None of them takes part
    afterwards, and the student as before."""
    if named.subject is None:
        return ()
    rack, members = teacher.rack, named.subject.members
    with teacher._silent_student(), _evaluating(rack.base.model):
        try:
            return check_members(ReferenceEngine(rack, chat), members, allow=named.allow, say=say)
        finally:
            rack.activate(())


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Eval mode, and afterwards each module in the mode it was in."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _same_gradients(adapter: AttachedAdapter | None) -> Iterator[None]:
    """A method may freeze what it activates; what is being trained goes on being trained."""
    tensors = list(adapter.parameters().values()) if adapter is not None else []
    wanted = [tensor.requires_grad for tensor in tensors]
    try:
        yield
    finally:
        for tensor, flag in zip(tensors, wanted, strict=True):
            tensor.requires_grad_(flag)


def _detach_new(rack: Rack, before: frozenset[str]) -> None:
    for slot in [slot for slot in rack.attached if slot not in before]:
        rack.detach(slot)
