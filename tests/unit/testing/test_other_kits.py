"""The kits for trainers, strategies, tasks and stores notice what is wrong, too.

Each fault is one of ours with one thing changed, held to the one test that should see it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapterhub.domain.evaluation import TaskData
from adapterhub.domain.patch import Affine
from adapterhub.domain.protocols import Objective, Teacher
from adapterhub.domain.refs import Ref
from adapterhub.domain.stores import Snapshot, Store
from adapterhub.plugin.catalog import catalog
from adapterhub.testing import (
    StoreConformance,
    StrategyConformance,
    TaskConformance,
    TrainerConformance,
)
from adapterhub.testing.stores import write_adapter
from adapterhub.testing.tiny import add_tiny_base

pytestmark = pytest.mark.models

# --- trainers ---------------------------------------------------------------------------------


class Faulty:
    """An objective that does as the one within."""

    def __init__(self, within: Objective) -> None:
        self.within = within

    def examples(self, items: Any, chat: Any) -> Any:
        return self.within.examples(items, chat)

    def loss(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, int]:
        return self.within.loss(model, batch)


class Averages(Faulty):
    def loss(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, int]:
        total, count = self.within.loss(model, batch)
        return total / count, count


class CountsPrompts(Faulty):
    def loss(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, int]:
        import torch

        ids = batch["input_ids"]
        columns = torch.arange(ids.shape[1] - 1)
        return self.within.loss(model, {**batch, "labels": ids, "columns": columns})


class IgnoresPositions(Faulty):
    """Right for padded rows; packed ones see each other."""

    def loss(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, int]:
        import torch

        if batch["attention_mask"] is None:
            batch = {**batch, "attention_mask": torch.ones_like(batch["input_ids"])}
        return self.within.loss(model, batch)


class Ascends(Faulty):
    def loss(self, model: Any, batch: Mapping[str, Any]) -> tuple[Any, int]:
        total, count = self.within.loss(model, batch)
        return (2 * total.detach() - total, count)


class TakesAnyOption(Faulty):
    pass


class Sft(TrainerConformance):
    trainer = "sft"
    fault: type[Faulty] = Faulty

    def made(self, options: Mapping[str, Any], teacher: Teacher | None) -> Objective:
        if self.fault is TakesAnyOption:
            options = {}
        return self.fault(super().made(options, teacher))


TRAINERS = [
    (Averages, "test_its_loss_is_a_sum_over_its_tokens"),
    (CountsPrompts, "test_only_answers_count"),
    (IgnoresPositions, "test_packed_and_padded_rows_lose_the_same"),
    (Ascends, "test_a_few_steps_lower_its_loss"),
    (TakesAnyOption, "test_an_unknown_option_is_refused"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.mark.parametrize(("fault", "test"), TRAINERS)
def test_a_trainer_that_breaks_its_promise_is_noticed(
    fault: type[Faulty], test: str, home: Path
) -> None:
    for broken in (True, False):
        kit = Sft()
        kit.fault = fault if broken else Faulty
        base = add_tiny_base("llama", "bf16", home)
        wanted = () if "option" in test else (base, kit.made({}, None))
        if broken:
            with pytest.raises((AssertionError, pytest.fail.Exception)):
                getattr(kit, test)(*wanted)
        else:
            getattr(kit, test)(*wanted)


# --- strategies -------------------------------------------------------------------------------


class Linear(StrategyConformance):
    strategy = "linear"


class ForgetsWeights(Linear):
    def combine(
        self,
        patches: Sequence[Affine],
        weights: Sequence[float],
        *,
        rank: int | None = None,
        **options: Any,
    ) -> Affine:
        return super().combine(patches, [1.0] * len(weights), rank=rank)


class FavoursTheFirst(Linear):
    def combine(
        self,
        patches: Sequence[Affine],
        weights: Sequence[float],
        *,
        rank: int | None = None,
        **options: Any,
    ) -> Affine:
        return super().combine(patches, [weights[0], *(w / 2 for w in weights[1:])], rank=rank)


class IgnoresTheRank(Linear):
    def combine(
        self,
        patches: Sequence[Affine],
        weights: Sequence[float],
        *,
        rank: int | None = None,
        **options: Any,
    ) -> Affine:
        return super().combine(patches, weights)


STRATEGIES: list[tuple[type[Linear], str, tuple[Any, ...]]] = [
    (ForgetsWeights, "test_weights_of_one_and_zero_give_the_first", ()),
    (ForgetsWeights, "test_an_exact_one_is_the_weighted_sum", ()),
    (FavoursTheFirst, "test_the_order_means_nothing", ()),
    (IgnoresTheRank, "test_a_rank_is_kept_or_refused", (1,)),
]


@pytest.mark.parametrize(("kit", "test", "more"), STRATEGIES)
def test_a_strategy_that_breaks_its_promise_is_noticed(
    kit: type[Linear], test: str, more: tuple[Any, ...]
) -> None:
    getattr(Linear(), test)(*more)
    with pytest.raises(AssertionError):
        getattr(kit(), test)(*more)


# --- tasks ------------------------------------------------------------------------------------


class Task:
    """The rows of one of ours, with what is asked changed by `leaks`, `forgets` and `muddles`."""

    def __init__(self, source: Any, *, leaks: bool, forgets: bool, muddles: bool) -> None:
        self.source, self.leaks, self.forgets, self.muddles = source, leaks, forgets, muddles

    def train_rows(self, n: int, *, seed: int = 0) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.source.train_rows(n, seed=seed)
        if self.leaks:
            asked = self.source.held_out(1, seed=seed).items[0]
            said = [{"role": m.role, "content": m.content} for m in asked.messages]
            rows[0] = {"messages": [*said, {"role": "assistant", "content": asked.answer}]}
        return rows

    def held_out(self, n: int, *, seed: int = 0) -> TaskData:
        data: TaskData = self.source.held_out(n, seed=seed)
        if self.muddles:
            return replace(data, metrics=("acc",))  # of items without choices
        return replace(data, digest="0" * 64) if self.forgets else data


@pytest.mark.parametrize(
    ("changed", "test", "more"),
    [
        ("leaks", "test_what_is_asked_is_never_trained_on", ((0, 0),)),
        ("forgets", "test_a_seed_decides_its_items_and_their_digest", ()),
        ("muddles", "test_it_can_be_measured_by_its_metrics", ()),
    ],
)
def test_a_task_that_breaks_its_promise_is_noticed(
    changed: str, test: str, more: tuple[Any, ...]
) -> None:
    class Kit(TaskConformance):
        task = "iso-dates"

    class Broken(Kit):
        @property
        def source(self) -> Any:
            wrong = {"leaks": False, "forgets": False, "muddles": False, changed: True}
            return Task(super().source, **wrong)

    getattr(Kit(), test)(*more)
    with pytest.raises(AssertionError):
        getattr(Broken(), test)(*more)


# --- stores -----------------------------------------------------------------------------------


class LastOneWins:
    """A store that forgets what a publisher built on."""

    def __init__(self, within: Store) -> None:
        self._within, self.uri = within, within.uri

    def publish(
        self, ref: Ref, folder: Path, *, message: str, parent: str | None, private: bool = False
    ) -> Snapshot:
        return self._within.publish(ref, folder, message=message, parent=None, private=private)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._within, name)


class IgnoresTheOffset(LastOneWins):
    def read(
        self, snapshot: Snapshot, path: str, *, offset: int = 0, length: int | None = None
    ) -> Iterator[bytes]:
        return self._within.read(snapshot, path, length=length)


class IgnoresTheLength(LastOneWins):
    def read(
        self, snapshot: Snapshot, path: str, *, offset: int = 0, length: int | None = None
    ) -> Iterator[bytes]:
        return self._within.read(snapshot, path, offset=offset)


Look = Callable[[StoreConformance, Any, Path, Path], None]
STORES: list[tuple[type[LastOneWins], Look]] = [
    (
        LastOneWins,
        lambda kit, store, one, two: kit.test_whoever_was_slower_changes_nothing(store, one, two),
    ),
    (
        IgnoresTheOffset,
        lambda kit, store, one, _: kit.test_reading_goes_on_from_an_offset(store, one, 100),
    ),
    (
        IgnoresTheLength,
        lambda kit, store, one, _: kit.test_reading_stops_after_a_length(store, one, 0, 8),
    ),
]


@pytest.mark.parametrize(("fault", "look"), STORES)
def test_a_store_that_breaks_its_promise_is_noticed(
    fault: type[LastOneWins], look: Look, tmp_path: Path
) -> None:
    one, two = write_adapter(tmp_path / "one"), write_adapter(tmp_path / "two", alpha=8)
    sound, other = (catalog().open_store((tmp_path / n).as_uri()) for n in ("good", "bad"))
    look(StoreConformance(), sound, one, two)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        look(StoreConformance(), fault(other), one, two)
