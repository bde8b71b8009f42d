"""`--scale`: some modules of an adapter weigh more than others, or nothing.

Reads what a person writes; what a pattern is about is decided where modules are known.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from adapterhub.cli.output import Output
from adapterhub.domain.scales import Scales, fault_of, scales_text
from adapterhub.errors import UsageError

if TYPE_CHECKING:
    from adapterhub.compose.members import Member
    from adapterhub.domain.engines import Slots
    from adapterhub.runtime.subjects import Subject

F = TypeVar("F", bound=Callable[..., Any])


def scale_option(function: F) -> F:
    return click.option(
        "--scale",
        "scales",
        multiple=True,
        metavar="REF:PATTERN=FACTOR",
        help="Weigh modules of REF: me/a:layers.0-11=0.5, me/a:mlp=0; may be repeated.",
    )(function)


def asked_scales(words: Sequence[str], texts: Iterable[str]) -> Mapping[str, Scales]:
    """By ref, what `--scale` says of the adapters that `texts` name.

    Raises UsageError for what is no scale, one said twice, and a ref that is not among them.
    """
    found: dict[str, dict[str, float]] = {}
    if not words:
        return found
    from adapterhub.runtime.resolve import named_in

    known = [term.ref for text in texts for term in named_in(text)]
    for word in words:
        ref, pattern, factor = _parsed(word)
        if ref not in known:
            close = difflib.get_close_matches(ref, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"name one of {', '.join(known)}"
            raise UsageError(f"--scale {word}: {ref} is not among the adapters named", hint=hint)
        if pattern in found.setdefault(ref, {}):
            raise UsageError(f"{pattern} of {ref} is scaled twice", hint="give it one factor")
        found[ref][pattern] = factor
    for scales in found.values():
        fault = fault_of(scales)
        if fault is not None:
            raise UsageError(fault[0], hint=fault[1])
    return found


def say_scaled(subject: Subject, slots: Slots, out: Output) -> None:
    """Which of its members are scaled, and how much of them takes no part."""
    for member, (_, weight) in zip(subject.members, slots, strict=True):
        if isinstance(weight, Mapping):
            silent = sum(own == 0 for own in weight.values())
            part = f"; {silent} of {len(weight)} modules take no part" if silent else ""
            out.say(f"note: {member.ref} is scaled: {scales_text(member.scales)}{part}")


def say_unchecked(members: Sequence[Member], out: Output) -> None:
    """Whose modules its file does not tell, so that its scales wait for a base."""
    from adapterhub.compose.members import outline

    for member in members:
        if member.scales and outline(member).modules is None:
            out.say(
                f"note: which modules {member.ref} changes is known on a base alone: --base NAME "
                "checks its scales now, else whoever attaches it does"
            )


def _parsed(word: str) -> tuple[str, str, float]:
    left, _, number = word.rpartition("=")
    ref, _, pattern = left.rpartition(":")
    try:
        factor = float(number)
    except ValueError:
        factor = None
    if not ref or not pattern or factor is None:
        raise UsageError(
            f"--scale {word} is not REF:PATTERN=FACTOR", hint="such as --scale me/style:mlp=0.5"
        )
    return ref, pattern, factor
