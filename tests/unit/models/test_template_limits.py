"""A stranger's chat template ends in time, or in one clear error; a good one is not disturbed."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from adapterhub.domain.evaluation import Message
from adapterhub.errors import DataError
from adapterhub.models import template_limits
from adapterhub.models.chat import Chat
from adapterhub.models.template_limits import check_source, limited
from adapterhub.testing.tiny import END, EOS, TEMPLATE, write_tokenizer

pytestmark = pytest.mark.models

QUESTION = (Message(role="user", content="How many legs has a spider?"),)
NESTED = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
DOUBLING = (
    "{% set n = namespace(x='a') %}{% for i in range(90000) %}{% set n.x = n.x ~ n.x %}{% endfor %}"
)


def chat(folder: Path, template: str) -> Chat:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(write_tokenizer(folder, template=template))
    return Chat(tokenizer, stop_ids=frozenset({EOS, END}))


@pytest.mark.parametrize(
    ("template", "fact"),
    [
        (NESTED, "does not come to an end"),
        (DOUBLING, "does not come to an end|more than 1 GiB|MemoryError"),
        ("{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError|end"),
        ("{{ 10 ** 10 ** 10 }}", "powers"),
        ("{{ 'a' * 10000000000 }}", "the number 10000000000"),
        ("{{ 'a' | center(0xFFFFFFFFF) }}", "the number 0xFFFFFFFFF"),
        ("{% for i in range(1000000) %}{% endfor %}", "OverflowError"),
        ("{% for i in range(11) %}{{ 'a' * 999999 }}{% endfor %}", "wrote 10,999,989 characters"),
        ("{{ messages.__class__.__mro__ }}", "tries to leave its sandbox"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "tries to leave its sandbox"),
        ("{{ ''.join.__self__.__class__.__base__.__subclasses__() }}", "its sandbox"),
        ("{% set x = messages.append(1) %}", "its sandbox"),
        ("{{ messages[9].role.x }}", "refuses this conversation"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages + 1 }}", "TypeError"),
        ("{% for %}", "chat template"),
        ("x" * 1_000_001, "1,000,001 characters"),
    ],
)
def test_a_template_that_escapes_or_never_ends_is_refused_in_time(
    template: str, fact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_limits, "MOST_SECONDS", 0.5)
    made = chat(tmp_path, template)
    start = time.process_time()
    with pytest.raises(DataError, match=fact) as caught:
        made.prompt_ids(QUESTION)
    assert time.process_time() - start < 3
    assert caught.value.hint


def test_a_template_has_two_seconds(tmp_path: Path) -> None:
    made = chat(tmp_path, NESTED)
    start = time.thread_time()
    with pytest.raises(DataError, match="2 seconds"):
        made.prompt_ids(QUESTION)
    assert 2 <= time.thread_time() - start < 3


def test_a_thread_that_was_stopped_works_on(tmp_path: Path) -> None:
    found: list[str] = []

    def work() -> None:
        bad, good = chat(tmp_path / "bad", NESTED), chat(tmp_path / "good", TEMPLATE)
        with pytest.raises(DataError):
            bad.prompt_ids(QUESTION)
        found.append(good.prompt_text(QUESTION))

    before = threading.active_count()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "spider" in found[0]
    assert threading.active_count() == before


def test_a_stop_that_comes_too_late_does_not_reach_what_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(template_limits, "MOST_SECONDS", 0.03)
    for work in (0.01, 0.028, 0.03, 0.032, 0.05):
        for _ in range(5):
            with suppress(DataError):
                limited(lambda work=work: _busy(work))  # type: ignore[misc]
            sum(range(1000))  # where a late one would surface


def _busy(seconds: float) -> str:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return "done"


@pytest.mark.parametrize(
    "template", [TEMPLATE, "{{ 8 * 2 }} {% for m in messages %}{{ loop.index0 % 2 }}{% endfor %}"]
)
def test_what_templates_usually_ask_for_is_fine(template: str) -> None:
    check_source(template)
