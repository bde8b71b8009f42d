"""A search for the learning rate on a tiny base: what it tries, leaves and remembers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.evaluation import Item, Message
from adapterhub.domain.protocols import ChatTokens, Example
from adapterhub.domain.recipe import Recipe
from adapterhub.errors import DataError, InterruptedRunError, TrainingError, UsageError
from adapterhub.formats.recipe_file import decode_recipe
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.testing.plain import base_bytes, logits_of
from adapterhub.testing.practice import objective
from adapterhub.testing.tiny import add_tiny_base
from adapterhub.train.find_rate import find_rate
from adapterhub.train.found import decode, document, picture, table
from adapterhub.train.run import train_adapter
from adapterhub.train.search import plan_search
from adapterhub.train.trials import Found, Search, set_aside

pytestmark = pytest.mark.models

OPTIONS = {"rank": 2}
RECIPE = Recipe(base="tiny-llama-bf16", data="rows", steps=8, batch_size=2, options=OPTIONS)
SUMS = [(f"{a} + {b}", str((a + b) % 10)) for a in range(5) for b in range(3)]


def sums(base: Base) -> list[Example]:
    items = [
        (line, Item(messages=(Message(role="user", content=question),), answer=answer))
        for line, (question, answer) in enumerate(SUMS, start=1)
    ]
    return objective().examples(items, base.chat)


@dataclass
class Watched:
    """The answer loss, which notes the rows it is asked for, by turns of training or judging."""

    change: Callable[[Any, int], Any] = lambda loss, calls: loss
    trained: set[tuple[int, ...]] = field(default_factory=set)
    judged: set[tuple[int, ...]] = field(default_factory=set)
    calls: int = 0

    def examples(self, items: Iterable[tuple[int, Item]], chat: ChatTokens) -> list[Example]:
        return objective().examples(items, chat)

    def loss(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, int]:
        rows = {example.ids for example in batch["examples"]}
        (self.trained if model.training else self.judged).update(rows)
        loss, count = objective().loss(model, batch)
        self.calls += 1
        return self.change(loss, self.calls), count


def search(base: Base, loss: Any = None, *, method: str = "lora", **more: Any) -> Found:
    options = OPTIONS if method == "lora" else {}
    train, held_out = set_aside(sums(base), seed=0)
    return Search(
        recipe=replace(RECIPE, method=method, options=options),
        rack=Rack(base),
        slot="trial",
        config=method_of(method).new_config(base.spec, options),
        objective=loss or objective(),
        train=train,
        held_out=held_out,
        held_out_from="data",
        **more,
    ).find()


@pytest.fixture(scope="module")
def found(home: Path) -> Found:
    return search(add_tiny_base("llama", "bf16", home))


# --- trials -----------------------------------------------------------------------------------


def test_fewer_and_fewer_rates_train_for_longer_and_longer(found: Found) -> None:
    counts = {trial.steps: 0 for trial in found.trials}
    for trial in found.trials:
        counts[trial.steps] += 1
    assert counts == {4: 8, 8: 4, 16: 2}
    assert found.rate in {trial.rate for trial in found.trials if trial.steps == 16}
    assert found.low <= found.rate <= found.high


def test_the_rate_that_is_found_learns_more_than_the_smallest(found: Found) -> None:
    first = {trial.rate: trial.held_out for trial in found.trials if trial.steps == 4}
    assert first[found.rate] < first[min(first)]


def test_the_same_search_finds_the_same_in_as_many_steps_as_it_said(
    found: Found, base: Base
) -> None:
    heard: list[tuple[int, int]] = []
    loss = Watched()
    assert search(base, loss, watch=lambda done, of, what: heard.append((done, of))) == found
    assert heard[-1][0] == found.steps <= heard[-1][1] == plan_search(RECIPE, start=1e-3).steps
    # And what judges a rate is never trained on.
    assert loss.judged
    assert not loss.judged & loss.trained


def test_a_method_with_a_rate_of_its_own_is_searched_round_it(found: Found, base: Base) -> None:
    assert found.start == 1e-3
    assert search(base, method="full").start == 5e-5


def test_a_range_test_ends_where_the_loss_explodes(base: Base) -> None:
    loss = Watched(change=lambda loss, calls: loss * (1000 if calls > 10 else 1))
    exploding = search(base, loss)
    assert len(exploding.points) == 11


def test_a_search_in_which_nothing_converges_fails(base: Base) -> None:
    loss = Watched(change=lambda loss, calls: loss * float("nan"))
    with pytest.raises(TrainingError, match="diverges at every rate"):
        search(base, loss)


@pytest.mark.parametrize("after", [10, 60])
def test_ctrl_c_ends_a_search_and_leaves_the_base_bare(after: int, base: Base) -> None:
    bytes_before, logits_before = base_bytes(base.model), logits_of(base.model)

    def interrupt(done: int, of: int, what: str) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(base, watch=interrupt)
    assert base_bytes(base.model) == bytes_before
    assert (logits_of(base.model) == logits_before).all()
    assert not any(module.training for module in base.model.modules())


# --- rows to judge by -------------------------------------------------------------------------


def row(*ids: int) -> Example:
    return Example(ids=ids, answer_start=1, line=1)


def test_equal_rows_are_never_on_both_sides() -> None:
    rows = [row(number % 7, 9) for number in range(40)]
    train, held_out = set_aside(rows, seed=0)
    assert {example.ids for example in train}.isdisjoint(example.ids for example in held_out)
    assert len(held_out) == 1


def test_a_fifth_is_set_aside_and_no_more_than_64() -> None:
    for count, aside in ((2, 1), (20, 4), (1000, 64)):
        train, held_out = set_aside([row(number, 9) for number in range(count)], seed=0)
        assert (len(train), len(held_out)) == (count - aside, aside)


def test_one_row_cannot_be_set_aside() -> None:
    with pytest.raises(DataError, match="one row alone"):
        set_aside([row(1, 2), row(1, 2)], seed=0)


# --- what it leaves ---------------------------------------------------------------------------


def test_a_search_is_a_document_and_back(found: Found) -> None:
    text = json.dumps(document(found), allow_nan=False)
    assert decode(json.loads(text), name="test") == found


def test_a_search_is_a_table_with_one_choice(found: Found) -> None:
    fates = [fate for *_, fate in table(found)]
    assert fates.count("chosen") == 1
    assert fates.count("on to 8 steps") == 4
    assert fates.count("on to 16 steps") == 2
    assert fates.count("dropped") == 7


def test_a_run_that_diverged_has_its_place_in_all_of_them(found: Found) -> None:
    lost = replace(found.trials[0], train_loss=None, folds=())
    broken = replace(found, trials=(lost, *found.trials[1:]))
    assert table(broken)[0][2:] == ("", "", "diverged")
    assert decode(json.loads(json.dumps(document(broken))), name="test") == broken
    assert picture(broken).startswith(b"\x89PNG")


# --- the run it is for ------------------------------------------------------------------------


@pytest.fixture
def recipe(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setenv("ADAPTERHUB_HOME", str(home))
    data = tmp_path / "sums.jsonl"
    data.write_text("".join(json.dumps({"prompt": q, "completion": a}) + "\n" for q, a in SUMS))
    return replace(RECIPE, data=str(data))


def stop_at(number: int) -> Callable[[Any], None]:
    def stop(step: Any) -> None:
        if step.number == number:
            raise KeyboardInterrupt

    return stop


def test_a_run_with_the_rate_says_that_it_was_found(
    recipe: Recipe, base: Base, tmp_path: Path
) -> None:
    with_rate = replace(recipe, learning_rate=0.02, rate_found=True)
    files = {"find-lr.json": b"{}"}
    made = train_adapter(with_rate, tmp_path / "out", base=base, files=files)
    written = decode_recipe((made.folder / "recipe.toml").read_bytes())
    assert (written.learning_rate, written.rate_found) == (0.02, True)
    said = made.manifest.recipe or {}
    assert (said["learning_rate"], said["rate_found"]) == (0.02, True)
    assert (made.folder / "find-lr.json").read_bytes() == b"{}"


def test_a_resumed_run_does_not_search_again(recipe: Recipe, base: Base, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = find_rate(recipe, out, base=base)
    assert first.recipe == replace(recipe, learning_rate=first.found.rate, rate_found=True)
    with pytest.raises(InterruptedRunError):
        train_adapter(first.recipe, out, base=base, on_step=stop_at(3))
    again = find_rate(recipe, out, base=base)
    assert (again.remembered, again.found) == (True, first.found)
    made = train_adapter(again.recipe, out, base=base)
    assert made.outcome.resumed == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "sums.jsonl"]


def test_what_was_found_for_another_run_is_not_used(
    recipe: Recipe, base: Base, tmp_path: Path
) -> None:
    find_rate(recipe, tmp_path / "out", base=base)
    other = find_rate(recipe, tmp_path / "out", start=1e-2, base=base)
    assert (other.remembered, other.found.start) == (False, 1e-2)


def test_an_unfinished_run_at_a_given_rate_is_in_the_way(
    recipe: Recipe, base: Base, tmp_path: Path
) -> None:
    with pytest.raises(InterruptedRunError):
        train_adapter(recipe, tmp_path / "out", base=base, on_step=stop_at(3))
    with pytest.raises(UsageError, match="unfinished run whose rate was given"):
        find_rate(recipe, tmp_path / "out", base=base)


def test_a_search_alone_leaves_nothing(recipe: Recipe, base: Base, tmp_path: Path) -> None:
    before: Sequence[Path] = sorted(tmp_path.iterdir())
    find_rate(recipe, tmp_path / "out", base=base, keep=False)
    assert sorted(tmp_path.iterdir()) == before


def test_rows_that_are_not_trained_on_anyway_are_the_judges(
    recipe: Recipe, base: Base, tmp_path: Path
) -> None:
    judges = tmp_path / "judges.jsonl"
    judges.write_text('{"prompt": "9 + 9", "completion": "8"}\n')
    more = replace(recipe, eval_data=str(judges), eval_every=4)
    found = find_rate(more, tmp_path / "out", base=base).found
    assert (found.held_out, found.held_out_from) == (1, "eval_data")
