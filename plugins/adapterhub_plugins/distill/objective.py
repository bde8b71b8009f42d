"""The loss of distillation: what a teacher says of each answer token, beside the answer itself.

For each token  hard * cross-entropy + (1 - hard) * T^2 * divergence(teacher, student). Asks a
teacher for logits; which model that is, and how it is loaded, is the core's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterhub.domain.digest import digest_of
from adapterhub.domain.evaluation import Item
from adapterhub.domain.protocols import ChatTokens, Example, Teacher
from adapterhub.errors import UsageError
from adapterhub_plugins.distill import losses
from adapterhub_plugins.distill.cache import load_samples, save_samples
from adapterhub_plugins.distill.options import read_options
from adapterhub_plugins.distill.rows import (
    answer_of,
    answers,
    common_tokens,
    padded,
    paired,
    seen_by,
    tokenized,
)
from adapterhub_plugins.distill.samples import Sampled, draw, generator_for, joined, side_by_side

if TYPE_CHECKING:
    from torch import Tensor

# Rows of which a teacher is asked at once when its samples are drawn.
ROWS = 8


class Distillation:
    """`adapterhub.domain.protocols.Objective`. Without a teacher it checks its options, and that
    is all it does."""

    def __init__(self, options: Mapping[str, Any], *, teacher: Teacher | None = None) -> None:
        self._options = read_options(options)
        self._teacher = teacher
        self._tokens: int | None = None
        self._theirs: dict[Example, Example] = {}
        self._samples: dict[Example, Sampled] = {}

    @property
    def teacher(self) -> Teacher:
        if self._teacher is None:
            raise UsageError("distill has no teacher to ask", hint="name one: --teacher REF")
        return self._teacher

    def examples(self, items: Iterable[tuple[int, Item]], chat: ChatTokens) -> list[Example]:
        """Raises MismatchError for a teacher of another vocabulary, unless `align` is set."""
        teacher, theirs = self.teacher, self.teacher.chat
        if not self._options.align:
            self._tokens = common_tokens(chat, theirs, name=teacher.name)
        made = []
        for line, item in items:
            row = tokenized(line, item, chat)
            aligned = self._options.align
            self._theirs[row] = (
                tokenized(line, item, theirs) if aligned else seen_by(theirs, row, item)
            )
            made.append(row)
        if self._options.cache and made:
            self._remember(made)
        return made

    def loss(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, int]:
        soft = self._soft_targets(batch)
        output = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            position_ids=batch["position_ids"],
            logits_to_keep=batch["columns"],
            use_cache=False,
        )
        student, labels = answers(output.logits, batch)
        hard = self._options.hard
        total = (1 - hard) * self._divergence(student, batch["examples"], soft)
        if hard:
            total = total + hard * losses.in_chunks(losses.cross_entropy, student, labels)
        return total, len(labels)

    def _soft_targets(self, batch: Mapping[str, Any]) -> Tensor | Sampled:
        """What the teacher says of the batch, asked before the student's own pass begins."""
        if not self._options.cache:
            return self._ask(batch)
        self.teacher.close()  # everything it has to say is known by now
        return joined([self._samples[example] for example in batch["examples"]])

    def _divergence(
        self, student: Tensor, examples: Sequence[Example], soft: Tensor | Sampled
    ) -> Tensor:
        if isinstance(soft, Sampled):
            targets = side_by_side(soft, device=student.device)
            loss = losses.sampled_divergence(self._options)
            return losses.in_chunks(loss, student[:, : self._tokens], *targets)
        if self._options.align:
            ours, theirs = paired(examples, [self._theirs[row] for row in examples])
            distance = losses.sorted_distance(self._options)
            return losses.in_chunks(distance, student[ours], soft[theirs])
        return losses.in_chunks(losses.divergence(self._options), student[:, : self._tokens], soft)

    def _ask(self, batch: Mapping[str, Any]) -> Tensor:
        """Logits (tokens, common vocabulary) of the teacher before each token of the answers."""
        rows = [self._theirs[example] for example in batch["examples"]]
        if any(row.ids != own.ids for row, own in zip(rows, batch["examples"], strict=True)):
            batch = self._own_batch(rows)
        logits, _ = answers(self.teacher.logits(batch), batch)
        return logits[:, : self._tokens]

    def _own_batch(self, rows: Sequence[Example]) -> dict[str, Any]:
        return padded(rows, pad=int(self.teacher.chat.tokenizer.pad_token_id))

    # --- a teacher that is asked once ---------------------------------------------------------

    def _remember(self, rows: Sequence[Example]) -> None:
        """Read the samples of these rows, or draw them and keep them."""
        options = self._options
        asked = [self._theirs[row] for row in rows]
        facts = {
            "teacher": self.teacher.digest,
            "data": digest_of([[row.answer_start, *row.ids] for row in asked]),
            "tokens": self._tokens,
            "samples": options.samples,
            "temperature": options.temperature,
            "seed": options.seed,
        }
        folder = Path(options.cache).expanduser() if isinstance(options.cache, str) else None
        found = load_samples(folder, facts) if folder is not None else None
        if found is None:
            found = self._drawn(asked)
            if folder is not None:
                save_samples(folder, facts, found)
        first = 0
        for row in rows:
            end = first + len(answer_of(row))
            self._samples[row] = found.part(first, end)
            first = end

    def _drawn(self, asked: Sequence[Example]) -> Sampled:
        """Each row has random numbers of its own, so that its samples do not depend on which rows
        there are beside it, nor on their order."""
        parts = []
        for first in range(0, len(asked), ROWS):
            rows = asked[first : first + ROWS]
            batch = self._own_batch(rows)
            logits, _ = answers(self.teacher.logits(batch), batch)
            lengths = [len(answer_of(row)) for row in rows]
            own = logits[:, : self._tokens].tensor_split(list(accumulate(lengths))[:-1])
            for row, part in zip(rows, own, strict=True):
                parts.append(
                    draw(
                        part,
                        samples=self._options.samples,
                        temperature=self._options.temperature,
                        generator=generator_for(row, seed=self._options.seed, device=part.device),
                    )
                )
        return joined(parts)
