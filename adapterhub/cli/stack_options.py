"""Numbers on the command line of `adapterhub stack`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from adapterhub.errors import UsageError


def named(
    refs: tuple[str, ...], stored: str | None, *, changes: Iterable[object]
) -> tuple[str, ...]:
    """What is to be put together. Raises UsageError for nothing, and where `--from`, which is the
    whole of it, is not alone."""
    if stored is None:
        if not refs:
            raise UsageError(
                "there is nothing to put together",
                hint="name adapters, or a composition: adapterhub stack --from composition.toml",
            )
        return refs
    if refs or any(change is not None for change in changes):
        raise UsageError(
            f"--from {stored} says everything itself",
            hint=f"leave the rest out, or change it: adapterhub stack {stored} --rank 8 -o DIR",
        )
    return (stored,)


def strategy_options(pairs: Sequence[str], **named: float | None) -> dict[str, float]:
    """What was given of the strategy's numbers, whole ones as whole ones."""
    options = {name: value for name, value in named.items() if value is not None}
    for pair in pairs:
        name, _, text = pair.partition("=")
        try:
            number = float(text)
        except ValueError:
            raise UsageError(f"{pair!r} is not KEY=NUMBER", hint="such as -O spread=0.2") from None
        options[name] = int(number) if text.strip().isdecimal() else number
    return options


def weight_list(text: str | None, count: int) -> list[float]:
    """What `--weights` says, one for each of `count` adapters; 1 each where it says nothing."""
    if text is None:
        return [1.0] * count
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"--weights {text} are not numbers", hint="write --weights 1,0.5"
        ) from error
    if len(found) != count:
        raise UsageError(
            f"{len(found)} weights for {count} adapters", hint="give one weight for each"
        )
    if any(weight == 0 for weight in found):
        raise UsageError("a weight of 0 leaves its adapter out", hint="leave it out of the list")
    return found
