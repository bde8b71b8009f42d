"""The reference engine: a batch answers as its rows would alone, and in their order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.engines import GenerateRequest, ScoreRequest, Slots
from adapterhub.domain.evaluation import Message
from adapterhub.errors import DataError, MismatchError, UsageError
from adapterhub.hub.folder import read_folder
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import method_of
from adapterhub.runtime.engine import Rack, ReferenceEngine, open_engine
from adapterhub.testing.practice import shake
from adapterhub.testing.tiny import CONTEXT, END, EOS, add_tiny_base

pytestmark = pytest.mark.models

Store = Callable[..., Path]
QUESTIONS = ("a", "How many legs has a spider?", "안녕", "x" * 60, "2 + 2")
ANSWERS = ("b", "Eight, as a rule.", "hello", "y", "4" * 30)
FAMILIES = ("llama", "phi3", "qwen2", "gpt2")
ONE, TWO = (("one", 1.0),), (("two", 1.0),)


def user(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def ask(text: str, **more: Any) -> GenerateRequest:
    return GenerateRequest(messages=user(text), max_new_tokens=12, **more)


def rate(question: str, answer: str, **more: Any) -> ScoreRequest:
    return ScoreRequest(messages=user(question), answer=answer, **more)


@pytest.fixture
def engine(base: Base, stored: Store) -> ReferenceEngine:
    """The tiny llama with two adapters attached."""
    engine = open_engine(base)
    engine.rack.attach("one", read_folder(stored("one", seed=1)))
    engine.rack.attach("two", read_folder(stored("two", seed=2)))
    return engine


# --- batches ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_generates_what_its_rows_would_alone(family: str, home: Path) -> None:
    engine = open_engine(add_tiny_base(family, "bf16", home))
    requests = [ask(question) for question in QUESTIONS]
    together = engine.generate(requests)
    alone = [engine.generate([request])[0] for request in requests]
    assert [made.token_ids for made in together] == [made.token_ids for made in alone]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_scores_what_its_rows_would_alone(family: str, home: Path) -> None:
    engine = open_engine(add_tiny_base(family, "bf16", home))
    requests = [rate(q, a) for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    for together, request in zip(engine.score(requests), requests, strict=True):
        alone = engine.score([request])[0]
        assert together.token_ids == alone.token_ids
        assert together.logprobs == pytest.approx(alone.logprobs, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_a_plain_forward(family: str, home: Path) -> None:
    import torch

    base = add_tiny_base(family, "bf16", home)
    requests = [rate(q, a, logits=True) for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    for score, request in zip(open_engine(base).score(requests), requests, strict=True):
        prompt = base.chat.prompt_ids(request.messages)
        answer = base.chat.answer_ids(request.messages, request.answer)
        with torch.inference_mode():
            logits = base.model(input_ids=torch.tensor([prompt + answer])).logits[0]
        expected = logits[len(prompt) - 1 : -1]
        chances = torch.log_softmax(expected, dim=-1)
        assert score.token_ids == tuple(answer)
        assert score.logprobs == pytest.approx(
            [float(chances[i, token]) for i, token in enumerate(answer)], abs=1e-4
        )
        assert (score.logits - expected).abs().max() < 1e-3


def test_greedy_text_is_that_of_a_plain_forward_token_by_token(base: Base) -> None:
    import torch

    ids = base.chat.prompt_ids(user("2 + 2"))
    made = open_engine(base).generate([ask("2 + 2")])[0]
    for token in made.token_ids:
        with torch.inference_mode():
            assert int(base.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()) == token
        ids = [*ids, token]


def test_answers_that_differ_in_their_last_token_share_a_row(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, rows = open_engine(base), list[int]()
    requests = [
        ScoreRequest(messages=user(question), answer=answer, chat=False)
        for question in ("one:", "three:")
        for answer in ("A", "B", "C", "AB")
    ]
    alone = [engine.score([request])[0].logprobs for request in requests]
    plain = base.model.forward

    def counted(*given: Any, **named: Any) -> Any:
        rows.append(len(named["input_ids"]))
        return plain(*given, **named)

    monkeypatch.setattr(base.model, "forward", counted)
    together = [score.logprobs for score in engine.score(requests)]
    assert rows == [4]
    assert together == [pytest.approx(chances, abs=1e-4) for chances in alone]


def test_more_rows_than_a_forward_holds_are_answered_in_order(base: Base) -> None:
    requests = [rate(f"{i}" * (1 + i % 7), "yes") for i in range(12)]
    expected = open_engine(base).score(requests)
    done: list[int] = []
    narrow = ReferenceEngine(Rack(base), base.chat, batch_tokens=64)
    split = narrow.score(requests, on_done=done.append)
    assert len(done) > 3
    assert sum(done) == 12
    for a, b in zip(split, expected, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


# --- slots ------------------------------------------------------------------------------------


def test_each_request_has_slots_and_weights_of_its_own(engine: ReferenceEngine) -> None:
    choices: list[Slots] = [ONE, (), TWO, ONE, (("one", 0.5), ("two", -2.0)), (("one", 0.5),)]
    requests = [rate("2 + 2", "4", slots=slots) for slots in choices]
    together = [score.logprobs for score in engine.score(requests)]
    alone = [engine.score([request])[0].logprobs for request in requests]
    for a, b in zip(together, alone, strict=True):
        assert a == pytest.approx(b, abs=1e-4)
    assert together[0] == pytest.approx(together[3], abs=1e-4)
    assert len({round(sum(logprobs), 3) for logprobs in together}) == 5


def test_generations_come_in_the_order_of_their_requests(engine: ReferenceEngine) -> None:
    requests = [
        replace(ask(question), slots=slots)
        for question in ("a", "x" * 30)
        for slots in (ONE, (), TWO)
    ]
    together = engine.generate(requests)
    assert [m.token_ids for m in together] == [
        engine.generate([request])[0].token_ids for request in requests
    ]
    assert [m.prompt_tokens for m in together] == [
        len(engine.base.chat.prompt_ids(r.messages))  # type: ignore[attr-defined]
        for r in requests
    ]


def test_the_base_is_itself_again_after_a_request_with_slots(engine: ReferenceEngine) -> None:
    before = engine.score([rate("2 + 2", "4")])[0].logprobs
    assert engine.score([rate("2 + 2", "4", slots=ONE)])[0].logprobs != before
    assert engine.score([rate("2 + 2", "4")])[0].logprobs == before


def test_a_detached_adapter_leaves_the_others_in_place(engine: ReferenceEngine) -> None:
    two = engine.score([rate("2 + 2", "4", slots=TWO)])[0].logprobs
    engine.rack.detach("one")
    assert engine.score([rate("2 + 2", "4", slots=TWO)])[0].logprobs == pytest.approx(two)


def design(engine: ReferenceEngine, slot: str, **options: Any) -> None:
    config = method_of("prompt_design").new_config(engine.base.spec, options)
    engine.rack.attach_fresh(slot, "prompt_design", config, seed=0)


def test_a_designed_prompt_is_said_before_the_conversation(engine: ReferenceEngine) -> None:
    design(engine, "first", system="A", template="[{prompt}]")
    design(engine, "second", examples=[{"prompt": "x", "completion": "y"}], template="<{prompt}>")
    slots = (("first", 1.0), ("one", 1.0), ("second", 1.0))
    by_hand = (
        Message(role="system", content="A"),
        Message(role="user", content="<x>"),
        Message(role="assistant", content="y"),
        Message(role="user", content="<[2 + 2]>"),
    )
    scores = engine.score(
        [
            rate("2 + 2", "4", slots=slots),
            rate("2 + 2", "4", slots=ONE),
            ScoreRequest(messages=by_hand, answer="4", slots=ONE),
        ]
    )
    assert scores[0].logprobs == pytest.approx(scores[2].logprobs, abs=1e-5)
    assert scores[0].logprobs != pytest.approx(scores[1].logprobs, abs=1e-2)
    [made] = engine.generate([ask("2 + 2", slots=slots)])
    [hand] = engine.generate([GenerateRequest(messages=by_hand, slots=ONE, max_new_tokens=12)])
    assert (made.token_ids, made.prompt_tokens) == (hand.token_ids, hand.prompt_tokens)


def test_designed_prompts_follow_the_order_of_their_slots(engine: ReferenceEngine) -> None:
    design(engine, "a", template="a{prompt}")
    design(engine, "b", template="b{prompt}")
    for order, text in (("ab", "bax"), ("ba", "abx")):
        slots = tuple((slot, 1.0) for slot in order)
        assert engine.rack.rewritten(user("x"), slots) == user(text)


def test_adapters_feed_each_other_where_a_request_says_so(base: Base) -> None:
    """Bottlenecks behind one sublayer: in a sequence the second reads what the first has made."""
    engine = open_engine(base)
    for seed, slot in enumerate(("one", "two")):
        method = method_of("bottleneck")
        config = method.new_config(base.spec, {"reduction": 8})
        shake(engine.rack.attach_fresh(slot, "bottleneck", config, seed=seed), seed=seed, size=0.3)
    both = (*ONE, *TWO)
    requests = [
        rate("2 + 2", "4", slots=slots, sequential=sequential)
        for slots in (both, both[::-1])
        for sequential in (False, True)
    ]
    added, fed, added_back, fed_back = [s.logprobs for s in engine.score(requests)]
    assert added == pytest.approx(added_back, abs=1e-4)
    assert fed != pytest.approx(added, abs=1e-4)
    assert fed != pytest.approx(fed_back, abs=1e-4)
    assert engine.score([requests[0]])[0].logprobs == pytest.approx(added, abs=1e-6)


# --- text -------------------------------------------------------------------------------------

SPIDER = "여덟 개 🕷"


@pytest.fixture(scope="module")
def fluent(home: Path) -> ReferenceEngine:
    """An engine whose slot `one` has learnt to answer everything in Korean, with a spider."""
    from adapterhub.domain.evaluation import Item
    from adapterhub.domain.recipe import Recipe
    from adapterhub.testing.practice import objective
    from adapterhub.train.loop import fit

    base = add_tiny_base("llama", "bf16", home)
    engine = open_engine(base)
    config = method_of("lora").new_config(base.spec, {"rank": 8})
    adapter = engine.rack.attach_fresh("one", "lora", config, seed=0)
    items = [(i, Item(messages=user(q), answer=SPIDER)) for i, q in enumerate(QUESTIONS)]
    examples = objective().examples(items, base.chat)
    recipe = Recipe(base="tiny", data="-", steps=60, batch_size=5, learning_rate=1e-2)
    outcome = fit(recipe, base, adapter, objective(), examples)
    assert outcome.steps[-1].loss < 0.1
    return engine


def test_an_answer_ends_at_the_token_that_ends_a_turn(fluent: ReferenceEngine) -> None:
    request = GenerateRequest(messages=user("2 + 2"), slots=ONE, max_new_tokens=60)
    made = fluent.generate([request])[0]
    assert made.text == SPIDER
    assert made.token_ids[-1] == END
    assert not {END, EOS} & set(made.token_ids[:-1])


def test_streamed_text_is_the_final_text_in_whole_characters(fluent: ReferenceEngine) -> None:
    request = GenerateRequest(messages=user("2 + 2"), slots=ONE, max_new_tokens=60)
    pieces: list[str] = []
    made = fluent.generate([request], on_text=pieces.append)[0]
    assert "".join(pieces) == made.text == SPIDER
    assert len(pieces) == len(SPIDER)


def test_text_that_is_cut_within_a_character_still_streams_as_it_ends(
    fluent: ReferenceEngine,
) -> None:
    request = GenerateRequest(messages=user("2 + 2"), slots=ONE, max_new_tokens=5)
    pieces: list[str] = []
    made = fluent.generate([request], on_text=pieces.append)[0]
    assert "".join(pieces) == made.text
    assert len(made.token_ids) == 5


def test_only_one_request_streams(engine: ReferenceEngine) -> None:
    with pytest.raises(UsageError, match="single request"):
        engine.generate([ask("a"), ask("b")], on_text=print)


# --- sampling ---------------------------------------------------------------------------------


def test_a_seed_reproduces_its_text_whoever_else_is_asked(engine: ReferenceEngine) -> None:
    request = ask("2 + 2", temperature=1.0, top_p=0.95, seed=3)
    alone = engine.generate([request])[0].token_ids
    crowd = [ask("a"), request, replace(request, seed=4), replace(request, slots=ONE)]
    together = [made.token_ids for made in engine.generate(crowd)]
    assert together[1] == alone
    assert len(set(together)) == 4


def test_sampling_leaves_the_random_numbers_of_the_caller_alone(base: Base) -> None:
    import torch

    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    open_engine(base).generate([ask("2 + 2", temperature=1.0)])
    assert torch.equal(torch.rand(1), expected)


def test_a_low_temperature_is_nearly_greedy(base: Base) -> None:
    engine = open_engine(base)
    cold, greedy = engine.generate([ask("2 + 2", temperature=1e-4), ask("2 + 2")])
    assert cold.token_ids == greedy.token_ids


def test_greedy_means_greedy_whatever_the_base_prefers(base: Base) -> None:
    expected = open_engine(base).generate([ask("2 + 2")])[0].token_ids
    config = base.model.generation_config
    config.do_sample, config.temperature, config.top_k, config.top_p = True, 5.0, 3, 0.5
    config.repetition_penalty = 9.0
    assert open_engine(base).generate([ask("2 + 2")])[0].token_ids == expected


# --- raw text ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_raw_text_is_scored_as_a_plain_forward_scores_it(family: str, home: Path) -> None:
    import torch

    base = add_tiny_base(family, "bf16", home)
    pairs = (("2 + 2 =", " 4"), ("", "Once"), ("Eight legs: ", "a spider, as a rule."))
    requests = [ScoreRequest(messages=user(q), answer=a, chat=False) for q, a in pairs]
    for score, (context, answer) in zip(open_engine(base).score(requests), pairs, strict=True):
        ids = base.tokenizer(context + answer, add_special_tokens=False).input_ids
        ids = ids if context else [base.tokenizer.bos_token_id, *ids]
        with torch.inference_mode():
            chances = torch.log_softmax(base.model(input_ids=torch.tensor([ids])).logits[0], -1)
        n = len(score.token_ids)
        assert score.token_ids == tuple(ids[-n:])
        expected = [float(chances[i - 1, ids[i]]) for i in range(len(ids) - n, len(ids))]
        assert score.logprobs == pytest.approx(expected, abs=1e-4)


def test_raw_text_is_continued_without_a_template(base: Base) -> None:
    engine = open_engine(base)
    [made] = engine.generate([ask("2 + 2 =", chat=False)])
    assert made.prompt_tokens == len("2 + 2 =")
    assert made.prompt_tokens < engine.generate([ask("2 + 2 =")])[0].prompt_tokens


def test_what_changes_conversations_is_refused_where_there_is_none(
    engine: ReferenceEngine,
) -> None:
    design(engine, "spell", system="Spell it.")
    slots = (*ONE, ("spell", 1.0))
    for ask_it in (
        lambda: engine.score([rate("2 + 2 =", "4", slots=slots, chat=False)]),
        lambda: engine.generate([ask("2 + 2 =", slots=slots, chat=False)]),
    ):
        with pytest.raises(MismatchError, match="spell changes conversations"):
            ask_it()
    assert engine.score([rate("2 + 2 =", "4", slots=ONE, chat=False)])


# --- limits -----------------------------------------------------------------------------------


def test_more_tokens_than_the_base_takes_are_refused(base: Base) -> None:
    engine = open_engine(base)
    with pytest.raises(DataError, match=f"takes {CONTEXT}"):
        engine.score([rate("x" * CONTEXT, "y")])
    with pytest.raises(DataError) as caught:
        engine.generate([GenerateRequest(messages=user("x"), max_new_tokens=CONTEXT)])
    assert "--max-new-tokens" in (caught.value.hint or "")


def test_the_last_token_that_fits_is_accepted(base: Base) -> None:
    engine = open_engine(base)
    room = CONTEXT - len(base.chat.prompt_ids(user("")))
    answer = base.chat.answer_ids(user(""), "")
    assert engine.score([rate("x" * (room - len(answer) - 1), "y")])[0].logprobs


@pytest.mark.parametrize("method", ["prompt_tuning", "prefix_tuning", "p_tuning"])
def test_virtual_tokens_count_against_the_context_length(method: str, base: Base) -> None:
    engine = open_engine(base)
    config = method_of(method).new_config(base.spec, {"tokens": 3})
    engine.rack.attach_fresh("one", method, config, seed=0)
    room = CONTEXT - len(base.chat.prompt_ids(user("")))
    answer = base.chat.answer_ids(user(""), "y")
    question = "x" * (room - len(answer) - 3)
    assert engine.score([rate(question, "y", slots=ONE)])[0].logprobs
    assert engine.score([rate(question + "xxx", "y")])[0].logprobs
    with pytest.raises(DataError, match=f"{CONTEXT + 1} tokens, 3 of them virtual tokens, are"):
        engine.score([rate(question + "x", "y", slots=ONE)])
    fits = GenerateRequest(messages=user("x" * (room - 4)), max_new_tokens=1, slots=ONE)
    assert engine.generate([fits])
    with pytest.raises(DataError, match=f"{CONTEXT + 1} tokens, 3 of them virtual"):
        engine.generate([replace(fits, max_new_tokens=2)])


def test_nothing_asked_is_nothing_answered(base: Base) -> None:
    engine = open_engine(base)
    assert engine.generate([]) == []
    assert engine.score([]) == []
