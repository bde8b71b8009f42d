"""The reference engine: transformers and the attached adapters, exactly as they are.

Every architecture, every method, every weight; the truth that faster engines are held to.
Requests that share slots run together, in batches of similar length, padded on the left. What an
adapter makes of a conversation is asked before it becomes tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from adapterhub.domain.engines import GenerateRequest, Generation, Score, ScoreRequest, Slots
from adapterhub.domain.evaluation import Message
from adapterhub.domain.protocols import LoadedBase
from adapterhub.errors import DataError, MismatchError, UsageError
from adapterhub.models import raw_text
from adapterhub.models.chat import Chat
from adapterhub.models.quiet import quiet
from adapterhub.runtime.attach import Rack

# Tokens in one forward pass; what fits beside a small base on a laptop, and enough to fill a GPU.
CPU_BATCH_TOKENS = 4096
CUDA_BATCH_TOKENS = 65536


class ReferenceEngine:
    """`adapterhub.domain.protocols.Engine` over transformers."""

    def __init__(self, rack: Rack, chat: Chat, *, batch_tokens: int | None = None) -> None:
        """`batch_tokens` bounds a forward pass, padding included; a longer row runs alone."""
        self.rack = rack
        self.base: LoadedBase = rack.base
        self.chat = chat
        usual = CPU_BATCH_TOKENS if rack.base.device == "cpu" else CUDA_BATCH_TOKENS
        self._budget = usual if batch_tokens is None else batch_tokens

    def generate(
        self,
        requests: Sequence[GenerateRequest],
        *,
        on_text: Callable[[str], None] | None = None,
        on_done: Callable[[int], None] | None = None,
    ) -> list[Generation]:
        if on_text is not None and len(requests) != 1:
            raise UsageError("only a single request can stream", hint="ask one at a time")
        prompts = [self._prompt(request) for request in requests]
        for request, prompt in zip(requests, prompts, strict=True):
            self._check_length(len(prompt) + request.max_new_tokens, request.slots)
        answers: dict[int, Generation] = {}
        for batch in self._batches(requests, prompts, generating=True):
            chosen = [requests[i] for i in batch]
            made = self._generate_batch(chosen, [prompts[i] for i in batch], on_text)
            answers.update(zip(batch, made, strict=True))
            if on_done is not None:
                on_done(len(batch))
        return [answers[i] for i in range(len(requests))]

    def score(
        self, requests: Sequence[ScoreRequest], *, on_done: Callable[[int], None] | None = None
    ) -> list[Score]:
        pairs = [self._pair(request) for request in requests]
        answers = [answer for _, answer in pairs]
        rows = [prompt + answer for prompt, answer in pairs]
        for request, row in zip(requests, rows, strict=True):
            self._check_length(len(row), request.slots)
        scores: dict[int, Score] = {}
        for batch in self._batches(requests, rows, generating=False):
            made = self._score_batch(
                [requests[i] for i in batch], [rows[i] for i in batch], [answers[i] for i in batch]
            )
            scores.update(zip(batch, made, strict=True))
            if on_done is not None:
                on_done(len(batch))
        return [scores[i] for i in range(len(requests))]

    # --- one request --------------------------------------------------------------------------

    def _prompt(self, request: GenerateRequest) -> list[int]:
        if request.chat:
            return self.chat.prompt_ids(self._rewritten(request))
        return raw_text.prompt_ids(self.base.tokenizer, self._raw(request))

    def _pair(self, request: ScoreRequest) -> tuple[list[int], list[int]]:
        """The ids of what is given, and of what is scored behind it."""
        if not request.chat:
            return raw_text.pair_ids(self.base.tokenizer, self._raw(request), request.answer)
        messages = self._rewritten(request)
        return self.chat.prompt_ids(messages), self.chat.answer_ids(messages, request.answer)

    def _rewritten(self, request: GenerateRequest | ScoreRequest) -> tuple[Message, ...]:
        """A request's conversation as its own adapters would have it."""
        return self.rack.rewritten(request.messages, request.slots, sequential=request.sequential)

    def _raw(self, request: GenerateRequest | ScoreRequest) -> str:
        rewriting = self.rack.rewriting(request.slots)
        if rewriting:
            raise MismatchError(
                f"{rewriting[0]} changes conversations, and raw text is none",
                hint="ask it by a task in chat form, without `chat = false`",
            )
        return "".join(message.content for message in request.messages)

    # --- one batch ----------------------------------------------------------------------------

    def _generate_batch(
        self,
        requests: list[GenerateRequest],
        prompts: list[list[int]],
        on_text: Callable[[str], None] | None,
    ) -> list[Generation]:
        import torch

        started = time.perf_counter()
        self.rack.activate(requests[0].slots, sequential=requests[0].sequential)
        inputs = self._pad(prompts)
        with quiet(), torch.inference_mode(), torch.random.fork_rng():
            torch.manual_seed(requests[0].seed)
            output = self.base.model.generate(
                **inputs,
                max_new_tokens=requests[0].max_new_tokens,
                eos_token_id=sorted(self.chat.stop_ids),
                pad_token_id=self.base.tokenizer.pad_token_id,
                streamer=_Streamer(self.chat, on_text) if on_text else None,
                **_sampling(requests[0]),
            )
        seconds = time.perf_counter() - started
        width = inputs["input_ids"].shape[1]
        return [
            self._generation(row[width:].tolist(), prompt_tokens=len(prompt), seconds=seconds)
            for row, prompt in zip(output, prompts, strict=True)
        ]

    def _generation(self, ids: list[int], *, prompt_tokens: int, seconds: float) -> Generation:
        end = next((i for i, token in enumerate(ids) if token in self.chat.stop_ids), len(ids))
        return Generation(
            text=self.chat.decode(ids[:end]),
            token_ids=tuple(ids[: end + 1]),
            prompt_tokens=prompt_tokens,
            seconds=seconds,
        )

    def _score_batch(
        self, requests: list[ScoreRequest], rows: list[list[int]], answers: list[list[int]]
    ) -> list[Score]:
        import torch

        self.rack.activate(requests[0].slots, sequential=requests[0].sequential)
        # The last token of an answer is asked about, never given; so answers that differ in it
        # alone, such as the letters of choices, share a row.
        given: dict[tuple[int, ...], int] = {}
        places = [given.setdefault(tuple(row[:-1]), len(given)) for row in rows]
        keep = max(map(len, answers))
        inputs = self._pad([list(row) for row in given])
        # Positions count from each row's first token; a plain forward would count the padding.
        positions = (inputs["attention_mask"].cumsum(dim=-1) - 1).clamp(min=0)
        with quiet(), torch.inference_mode():
            logits = self.base.model(
                **inputs, position_ids=positions, logits_to_keep=keep, use_cache=False
            ).logits
        made = []
        for request, place, answer in zip(requests, places, answers, strict=True):
            steps = logits[place, -len(answer) :].float()
            chosen = torch.log_softmax(steps, dim=-1)[range(len(answer)), answer]
            made.append(
                Score(
                    logprobs=tuple(chosen.tolist()),
                    token_ids=tuple(answer),
                    logits=steps.cpu() if request.logits else None,
                )
            )
        return made

    # --- batches ------------------------------------------------------------------------------

    def _batches(
        self, requests: Sequence[Any], rows: list[list[int]], *, generating: bool
    ) -> Iterator[list[int]]:
        """Index lists: requests that may share a forward pass, longest first."""

        def kind(i: int) -> tuple[Any, ...]:
            request = requests[i]
            adapters = (request.slots, request.sequential)
            if not generating:
                return adapters
            sampled = request.temperature > 0
            # A sampled request runs alone, so that its seed alone decides its text.
            return (*adapters, request.max_new_tokens, i if sampled else -1)

        groups: dict[tuple[Any, ...], list[int]] = {}
        for i in sorted(range(len(rows)), key=lambda i: -len(rows[i])):
            groups.setdefault(kind(i), []).append(i)
        for group in groups.values():
            indices = group
            while indices:
                longest = len(rows[indices[0]])
                extra = requests[indices[0]].max_new_tokens if generating else 0
                size = max(1, self._budget // (longest + extra))
                yield indices[:size]
                indices = indices[size:]

    def _pad(self, rows: list[list[int]]) -> dict[str, Any]:
        """input_ids and attention_mask (rows, longest), padded on the left."""
        import torch

        longest = max(map(len, rows))
        pad = self.base.tokenizer.pad_token_id
        ids = [[pad] * (longest - len(row)) + row for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        return {
            "input_ids": torch.tensor(ids, device=self.base.device),
            "attention_mask": torch.tensor(mask, device=self.base.device),
        }

    def _check_length(self, tokens: int, slots: Slots) -> None:
        limit, ahead = self.base.spec.context_length, self.rack.virtual_tokens(slots)
        if limit and tokens + ahead > limit:
            virtual = f", {ahead} of them virtual tokens," if ahead else ""
            raise DataError(
                f"{tokens + ahead} tokens{virtual} are asked of a base that takes {limit}",
                hint="shorten the prompt or lower --max-new-tokens",
            )


class _Streamer:
    """Hands over text as it becomes final: what transformers' `generate` calls a streamer."""

    def __init__(self, chat: Chat, on_text: Callable[[str], None]) -> None:
        self.chat = chat
        self._on_text = on_text
        self._ids: list[int] = []
        self._shown = ""
        self._prompt_seen = False

    def put(self, value: Any) -> None:
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        self._ids += [
            token for token in value.flatten().tolist() if token not in self.chat.stop_ids
        ]
        text = self.chat.decode(self._ids)
        # A character split over tokens decodes to a replacement mark until its last byte is there.
        if not text.endswith("\ufffd"):
            self._emit(text)

    def end(self) -> None:
        self._emit(self.chat.decode(self._ids))

    def _emit(self, text: str) -> None:
        if len(text) > len(self._shown):
            self._on_text(text[len(self._shown) :])
            self._shown = text


def _sampling(request: GenerateRequest) -> dict[str, Any]:
    """The base's own generation config may ask for something else; what was asked here counts."""
    if request.temperature == 0:
        greedy = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        return {**greedy, "repetition_penalty": 1.0}
    return {
        "do_sample": True,
        "repetition_penalty": 1.0,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": 0,
    }
