"""The runner: base first, the same items for everyone, and every answer kept.

The engine here knows its answers by heart: a whole implementation of the protocol, without a model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from adapterhub.domain.base import BaseSpec, Fingerprint
from adapterhub.domain.digest import digest_of
from adapterhub.domain.engines import Engine, GenerateRequest, Generation, Score, ScoreRequest
from adapterhub.domain.evaluation import Item, Message, Metric, TaskData
from adapterhub.domain.protocols import LoadedBase
from adapterhub.domain.quantization import scheme_by_name
from adapterhub.domain.sites import Handle, Site, SiteKind
from adapterhub.errors import MismatchError, PluginError, UsageError
from adapterhub.evaluate.result import Answer, Evaluation
from adapterhub.evaluate.runner import evaluate

SPEC = BaseSpec(
    name="tiny",
    id="acme/tiny",
    source="/models/tiny",
    revision="abc",
    family="llama",
    modality="causal-lm",
    scheme=scheme_by_name("nf4"),
    fingerprint=Fingerprint(layout="l", sketch="s", content="c"),
    parameters=1000,
    stored_bytes=600,
    context_length=128,
)
ONE = (("one", 1.0),)
TWO = (("two", 1.0),)
MIX = (("one", 1.0), ("two", 0.5))


@dataclass
class LookupBase:
    spec: BaseSpec = SPEC
    model: Any = None
    tokenizer: Any = None
    device: str = "cpu"
    shared: dict[str, Any] = field(default_factory=dict)
    sequential: bool = False

    def sites(self, kind: SiteKind) -> Mapping[str, Site]:
        return {}

    def parameters(self) -> Mapping[str, Any]:
        return {}

    def add_to_parameter(self, name: str, change: Callable[[], Any]) -> Handle:
        raise AssertionError("nothing is attached here")

    def linear_sites(self) -> Mapping[str, tuple[int, int]]:
        return {}


@dataclass
class LookupEngine:
    """`skill` maps a slot to the share of the answer's characters' probability it adds; the
    answer is given right when the sum reaches a half. Asked in batches of `batch`."""

    skill: Mapping[str, float] = field(default_factory=lambda: {"one": 0.6, "two": 0.2})
    base: LoadedBase = field(default_factory=LookupBase)
    batch: int = 3
    asked: list[GenerateRequest | ScoreRequest] = field(default_factory=list)

    def generate(
        self, requests: Sequence[GenerateRequest], *, on_text: Any = None, on_done: Any = None
    ) -> list[Generation]:
        return [
            Generation(text=self._reply(request), token_ids=(), prompt_tokens=1, seconds=0.0)
            for request in self._batches(requests, on_done)
        ]

    def score(self, requests: Sequence[ScoreRequest], *, on_done: Any = None) -> list[Score]:
        return [
            Score(
                logprobs=(math.log(self._chance(request)),) * (len(request.answer) + 1),
                token_ids=tuple(range(len(request.answer) + 1)),
            )
            for request in self._batches(requests, on_done)
        ]

    def _batches(self, requests: Sequence[Any], on_done: Callable[[int], None] | None) -> list[Any]:
        for start in range(0, len(requests), self.batch):
            if on_done is not None:
                on_done(len(requests[start : start + self.batch]))
        self.asked.extend(requests)
        return list(requests)

    def _chance(self, request: GenerateRequest | ScoreRequest) -> float:
        whole = [(slot, weight) for slot, weight in request.slots if isinstance(weight, float)]
        return 0.1 + sum(self.skill[slot] * weight for slot, weight in whole)

    def _reply(self, request: GenerateRequest) -> str:
        question = request.messages[-1].content
        return f" {question.upper()}\n" if self._chance(request) >= 0.5 else question


def task(
    name: str = "shout",
    n: int = 4,
    metrics: tuple[Metric, ...] = ("exact_match", "perplexity"),
    **more: Any,
) -> TaskData:
    questions = ["abcdefghij"[: index + 1] for index in range(n)]
    return TaskData(
        name=name,
        items=tuple(
            Item(messages=(Message(role="user", content=text),), answer=text.upper())
            for text in questions
        ),
        digest=digest_of(questions),
        max_new_tokens=9,
        metrics=metrics,
        **more,
    )


def measure(
    *subjects: str, tasks: Sequence[TaskData] = (), engine: Engine | None = None
) -> Evaluation:
    slots = {"one": ONE, "two": TWO, "mix": MIX}
    chosen = [(name, slots[name]) for name in subjects]
    return evaluate(engine or LookupEngine(), chosen, tasks or [task()])


def test_adapters_feed_each_other_where_it_is_said() -> None:
    engine = LookupEngine()
    subjects = [("one", ONE), ("mix", MIX)]
    evaluate(engine, subjects, [task()], sequential=["mix"])
    assert {request.slots: request.sequential for request in engine.asked} == {
        (): False,
        ONE: False,
        MIX: True,
    }


def test_each_item_is_answered_by_the_slots_chosen_for_it() -> None:
    engine, asked = LookupEngine(), task()
    each = [TWO if i % 2 else ONE for i in range(len(asked.items))]
    subjects = [("mix", MIX), ("one", ONE)]
    evaluate(engine, subjects, [asked], chosen={("mix", asked.name): each})
    by_item = {
        item.messages: [r.slots for r in engine.asked if r.messages == item.messages]
        for item in asked.items
    }
    for item, slots in zip(asked.items, each, strict=True):
        assert set(by_item[item.messages]) == {(), ONE, slots}
    assert MIX not in {request.slots for request in engine.asked}


def test_an_adapter_that_helps_is_seen_to_help() -> None:
    found = measure("one")
    match, perplexity = found.rows
    assert (match.metric, match.score, match.delta, match.n) == ("exact_match", 1.0, 1.0, 4)
    assert perplexity.score == pytest.approx(1 / 0.7)
    assert perplexity.delta == pytest.approx(1 / 0.7 - 10)
    assert perplexity.ci95 is None  # the same difference on every item tells of no spread


def test_the_base_is_measured_first_and_has_nothing_to_compare_with() -> None:
    engine = LookupEngine()
    found = measure("one", engine=engine)
    assert [row.adapter for row in found.base_rows] == ["tiny", "tiny"]
    assert all(row.delta is None and row.ci95 is None for row in found.base_rows)
    assert [request.slots for request in engine.asked] == [()] * 8 + [ONE] * 8


def test_everyone_is_asked_the_same_items_in_the_same_order() -> None:
    engine = LookupEngine()
    measure("one", "two", engine=engine)
    asked = [request.messages for request in engine.asked]
    assert asked == [item.messages for item in task().items] * 6


def test_a_composition_is_asked_with_all_its_weights() -> None:
    engine = LookupEngine()
    found = measure("mix", engine=engine)
    assert engine.asked[-1].slots == MIX
    assert found.rows[1].score == pytest.approx(1 / 0.8)


def test_answers_are_as_long_as_the_task_allows_and_greedy() -> None:
    engine = LookupEngine()
    measure("one", engine=engine)
    generated = [request for request in engine.asked if isinstance(request, GenerateRequest)]
    assert {(request.max_new_tokens, request.temperature) for request in generated} == {(9, 0.0)}


def test_every_answer_is_kept_with_its_question() -> None:
    found = measure("one")
    assert len(found.answers) == 8
    assert found.answers[0] == Answer(
        adapter="tiny",
        task="shout",
        item=0,
        question="a",
        expected="A",
        given="a",
        score=0.0,
        logprob=2 * math.log(0.1),
        tokens=2,
    )
    assert (found.answers[-1].given, found.answers[-1].score) == (" ABCD\n", 1.0)


@pytest.mark.parametrize("metric", ["exact_match", "perplexity"])
def test_a_task_is_measured_by_its_own_metrics_only(metric: Metric) -> None:
    engine = LookupEngine()
    found = measure("one", tasks=[task(metrics=(metric,))], engine=engine)
    assert [row.metric for row in (*found.base_rows, *found.rows)] == [metric, metric]
    assert (found.answers[0].given is None) == (metric == "perplexity")
    assert (found.answers[0].logprob is None) == (metric == "exact_match")
    assert len(engine.asked) == 8


def test_many_metrics_read_the_same_answers() -> None:
    engine = LookupEngine()
    written: tuple[Metric, ...] = ("f1", "rougeL", "chrf", "bleu", "regex")
    found = measure("one", tasks=[task(metrics=written, pattern=r"\w+")], engine=engine)
    assert len(engine.asked) == 8
    assert [row.metric for row in found.rows] == list(written)
    # In small letters all agree; chrF, BLEU and the pattern keep the case.
    assert [row.delta for row in found.rows[:2]] == [0.0, 0.0]
    assert all(row.delta is not None and row.delta > 0 for row in found.rows[2:3])
    assert found.rows[4].delta == 1.0
    assert "chrf" not in json.dumps(found.rows[0].signature)
    rows = json.loads(json.dumps(found.to_json(), allow_nan=False))["rows"]
    assert [row.get("signature", "").partition("|")[0] for row in rows] == (
        ["", "", "nrefs:1", "nrefs:1", ""]
    )


def test_a_likelihood_task_writes_nothing() -> None:
    engine = LookupEngine()
    metrics: tuple[Metric, ...] = ("perplexity", "bits_per_byte")
    found = measure("one", tasks=[task(metrics=metrics, kind="likelihood")], engine=engine)
    assert all(isinstance(request, ScoreRequest) for request in engine.asked)
    assert len(engine.asked) == 8
    assert found.rows[1].score == pytest.approx(-math.log2(0.7))  # a token is a byte here


def choices(*, chat: bool) -> TaskData:
    """Two items of three choices; to this engine a shorter one is likelier."""
    asked = (Message(role="user", content="q"),)
    texts = ("long", "s", "middle")
    items = tuple(
        Item(messages=asked, answer=texts[right], choices=texts, right=right) for right in (1, 0)
    )
    metrics: tuple[Metric, ...] = ("acc", "acc_norm")
    return TaskData(name="pick", items=items, digest="d", kind="choice", metrics=metrics, chat=chat)


def test_the_likeliest_choice_is_taken_and_every_choice_is_asked_once() -> None:
    engine, seen = LookupEngine(), list[tuple[int, int, str]]()
    found = evaluate(
        engine, [("one", ONE)], [choices(chat=True)], on_progress=lambda *step: seen.append(step)
    )
    assert [request.answer for request in engine.asked if isinstance(request, ScoreRequest)] == (
        ["long", "s", "middle"] * 4
    )
    assert seen[-1][:2] == (12, 12)
    assert [(row.metric, row.score) for row in found.base_rows] == [("acc", 0.5), ("acc_norm", 0.5)]
    assert [(a.given, a.expected, a.score) for a in found.answers[:2]] == [
        ("s", "s", 1.0),
        ("s", "long", 0.0),
    ]
    # The engine scores an end of turn too, which is none of the choice's business.
    assert found.answers[0].logprob == pytest.approx(math.log(0.1))


def test_raw_choices_stand_behind_the_separator_and_are_scored_whole() -> None:
    engine = LookupEngine()
    found = evaluate(engine, [], [choices(chat=False)])
    assert [request.chat for request in engine.asked] == [False] * 6
    assert isinstance(engine.asked[0], ScoreRequest)
    assert engine.asked[0].answer == " long"
    assert found.answers[0].logprob == pytest.approx(3 * math.log(0.1))  # " s" and one more


def test_choices_that_are_not_finite_name_the_adapter() -> None:
    with pytest.raises(MismatchError, match="two gives log-probabilities that are not finite"):
        measure("two", tasks=[choices(chat=True)], engine=LookupEngine(skill={"two": math.nan}))


def test_a_written_answer_ends_before_the_first_stop() -> None:
    class Chatty(LookupEngine):
        def _reply(self, request: GenerateRequest) -> str:
            return f"{request.messages[-1].content.upper()}\n\nQ: and then?"

    found = measure("one", tasks=[task(stop=("Q:", "\n"))], engine=Chatty())
    assert [answer.given for answer in found.answers[:2]] == ["A", "AB"]
    assert found.rows[0].score == 1.0


def test_rows_are_grouped_by_adapter_then_task() -> None:
    found = measure("one", "two", tasks=[task("a"), task("b", n=2)])
    assert [(row.adapter, row.task) for row in found.rows[::2]] == [
        ("one", "a"),
        ("one", "b"),
        ("two", "a"),
        ("two", "b"),
    ]


def test_progress_counts_up_to_the_whole() -> None:
    seen: list[tuple[int, int, str]] = []
    evaluate(LookupEngine(), [("one", ONE)], [task()], on_progress=lambda *step: seen.append(step))
    assert [done for done, _, _ in seen] == [3, 4, 7, 8, 11, 12, 15, 16]
    assert {total for _, total, _ in seen} == {16}
    assert (seen[0][2], seen[-1][2]) == ("tiny on shout", "one on shout")


def test_json_has_the_base_with_its_rows_and_the_adapters_rows() -> None:
    found = json.loads(json.dumps(measure("one").to_json(), allow_nan=False))
    assert set(found) == {"base", "rows"}
    assert found["base"]["name"] == "tiny"
    assert found["base"]["revision"] == "abc"
    assert len(found["base"]["rows"]) == 2
    keys = {"adapter", "task", "metric", "score", "stderr", "delta", "ci95", "n"}
    assert all(set(row) == keys for row in [*found["rows"], *found["base"]["rows"]])
    assert found["rows"][0]["delta"] == 1.0
    low, high = found["rows"][0]["ci95"]
    assert 0 < low < high == 1.0


def test_what_one_item_cannot_tell_is_null_in_json() -> None:
    found = measure("one", tasks=[task(n=1)]).to_json()
    assert found["rows"][0]["stderr"] is None
    assert found["rows"][1]["ci95"] is None
    json.dumps(found, allow_nan=False)


def test_two_runs_give_the_same_result() -> None:
    assert measure("one", "two") == measure("one", "two")


def test_without_an_adapter_only_the_base_is_measured() -> None:
    found = measure()
    assert found.rows == ()
    assert len(found.base_rows) == 2


def test_log_probabilities_that_are_not_finite_name_the_adapter() -> None:
    with pytest.raises(MismatchError, match="two gives log-probabilities that are not finite"):
        measure("two", engine=LookupEngine(skill={"two": math.nan}))


@pytest.mark.parametrize(
    ("subjects", "tasks", "fact"),
    [
        ([("a", ONE), ("a", TWO)], [task()], "a is to be measured twice"),
        ([("tiny", ONE)], [task()], "tiny is to be measured twice"),
        ([("a", ())], [task()], "a puts no adapter on the base"),
        ([("a", ONE)], [task(), task()], "the task shout is named twice"),
    ],
)
def test_subjects_and_tasks_must_be_told_apart(
    subjects: list[tuple[str, tuple[tuple[str, float], ...]]], tasks: list[TaskData], fact: str
) -> None:
    engine = LookupEngine()
    with pytest.raises(UsageError, match=fact):
        evaluate(engine, subjects, tasks)
    assert not engine.asked


@pytest.mark.parametrize("bad", [{"n": 0}, {"metrics": ("chrff",)}])
def test_a_task_that_cannot_be_measured_is_its_plugins_fault(bad: dict[str, Any]) -> None:
    engine = LookupEngine()
    with pytest.raises(PluginError, match="shout has no items, or a metric that is not known"):
        measure("one", tasks=[task(**bad)], engine=engine)
    assert not engine.asked
