"""`adapterhub run`."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from adapterhub.cli.options import allow_option, base_option, device_option, json_option
from adapterhub.cli.output import Output
from adapterhub.cli.scaling import scale_option
from adapterhub.cli.workbench import Workbench, open_workbench, say_what_is_lost
from adapterhub.domain.composition import SWITCH
from adapterhub.domain.evaluation import Message
from adapterhub.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType
    from rich.live import Live

    from adapterhub.domain.engines import GenerateRequest, Generation
    from adapterhub.runtime.answering import Choice
    from adapterhub.runtime.subjects import Subject


@click.command(short_help="Ask an adapter, or a composition of several, something.")
@click.argument("ref")
@click.argument("prompt", required=False)
@click.option("--system", help="A system message before the prompt.")
@click.option("--strategy", metavar="NAME", help="Of a composition: sequential, switch or route.")
@click.option("--use", metavar="NAME", help="Which of its adapters answers, by switch.")
@click.option("--compare", is_flag=True, help="Show the bare base's answer beside it.")
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="At most."
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="0: the likeliest token.",
)
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Draw from the likeliest tokens of this share.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of what is drawn.")
@scale_option
@allow_option
@base_option
@device_option
@json_option
def run(
    *,
    ref: str,
    prompt: str | None,
    system: str | None,
    strategy: str | None,
    use: str | None,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    scales: tuple[str, ...],
    allow: tuple[str, ...],
    base_name: str | None,
    device: str | None,
    compare: bool,
    as_json: bool,
) -> None:
    """Answer PROMPT (default: standard input) with the adapter REF on its base, as it comes.

    The base's chat template is applied, once. With --compare, the base answers first, alone. By
    --strategy switch, the adapter that --use names answers; by route, the one that was trained on
    prompts most like this one.
    """
    out = Output(as_json=as_json)
    text = prompt if prompt is not None else _piped()
    if not text.strip():
        raise UsageError("the prompt is empty", hint='adapterhub run REF "...", or pipe one in')
    turns = [Message(role="system", content=system)] if system else []
    from adapterhub.domain.engines import GenerateRequest

    bench = open_workbench(
        [ref],
        base_name=base_name,
        device=device,
        out=out,
        allow=frozenset(allow),
        scales=scales,
        strategy=strategy,
        check=lambda subjects: _check_use(subjects[0], use),
    )

    messages = (*turns, Message(role="user", content=text))
    say_what_is_lost(bench, [messages], out)
    choice = _choice(bench, messages, use, out)
    slots = choice.slots if choice else bench.slots[0]

    def request(*, bare: bool) -> GenerateRequest:
        return GenerateRequest(
            messages=messages,
            slots=() if bare else slots,
            sequential=not bare and bench.subjects[0].sequential,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
        )

    base_spec = bench.engine.base.spec
    if compare:
        pair = _Compared(bench, out, f"{base_spec.name} · {base_spec.scheme.name}", ref)
        answers = pair.show(request(bare=True), request(bare=False))
    else:
        answers = [_stream(bench, request(bare=False), out)]
    names = [base_spec.name, ref] if compare else [ref]
    found = [_json(name, answer) for name, answer in zip(names, answers, strict=True)]
    if choice:
        found[-1]["answered_by"] = choice.member
    out.data(found)


def _piped() -> str:
    if sys.stdin.isatty():
        raise click.UsageError("give a PROMPT, or pipe one in", click.get_current_context())
    return sys.stdin.read().strip()


def _check_use(subject: Subject, use: str | None) -> None:
    """Raises UsageError for a name where none is needed, and as `named_member` does."""
    from adapterhub.runtime.answering import named_member

    if subject.strategy == SWITCH:
        named_member(subject, use)
    elif use is not None:
        raise UsageError(
            f"--use names one of several adapters by switch, and {subject.name} is put together by "
            f"{subject.strategy}",
            hint="add --strategy switch, or leave --use out",
        )


def _choice(
    bench: Workbench, messages: tuple[Message, ...], use: str | None, out: Output
) -> Choice | None:
    """Who answers, said aloud where the prompt decided; None where all do."""
    from adapterhub.runtime.answering import choose

    subject = bench.subjects[0]
    if not subject.chooses:
        return None
    choice = choose(bench.engine, subject, bench.slots[0], [(messages, use)])[0]
    if choice.cosines:
        pairs = zip(subject.members, choice.cosines, strict=True)
        told = ", ".join(f"{member.ref} {cosine:.2f}" for member, cosine in pairs)
        out.say(f"note: {choice.member} answers; cosines: {told}")
    return choice


def _stream(bench: Workbench, request: GenerateRequest, out: Output) -> Generation:
    def show(text: str) -> None:
        click.echo(text, nl=False)

    answer = bench.engine.generate([request], on_text=None if out.as_json else show)[0]
    out.line()
    out.say(_rate(answer))
    return answer


def _rate(answer: Generation) -> str:
    count = len(answer.token_ids)
    return f"{count} tokens · {count / max(answer.seconds, 1e-9):.1f} tok/s"


def _json(name: str, answer: Generation) -> dict[str, object]:
    return {
        "subject": name,
        "text": answer.text,
        "tokens": len(answer.token_ids),
        "prompt_tokens": answer.prompt_tokens,
        "seconds": answer.seconds,
    }


@dataclass(frozen=True)
class _Compared:
    """Base and adapter side by side, streaming; one under the other where it is narrow."""

    bench: Workbench
    out: Output
    base_title: str
    adapter_title: str

    def show(self, bare: GenerateRequest, adapted: GenerateRequest) -> list[Generation]:
        engine = self.bench.engine
        if self.out.as_json:
            return engine.generate([bare, adapted])
        if not self.out.console.is_terminal:
            return [
                self._plain("base", self.base_title, bare),
                self._plain("adapter", self.adapter_title, adapted),
            ]
        return self._side_by_side(bare, adapted)

    def _plain(self, kind: str, title: str, request: GenerateRequest) -> Generation:
        answer = self.bench.engine.generate([request])[0]
        self.out.line(f"{kind}   {title}")
        self.out.line(answer.text)
        self.out.line(f"({_rate(answer)})")
        return answer

    def _side_by_side(self, bare: GenerateRequest, adapted: GenerateRequest) -> list[Generation]:
        from rich.live import Live

        texts = ["", ""]
        rates = ["", ""]
        answers: list[Generation] = []
        with Live(self._panels(texts, rates), console=self.out.console, auto_refresh=False) as live:
            for side, request in enumerate((bare, adapted)):
                answers.append(
                    self.bench.engine.generate(
                        [request], on_text=self._shower(live, texts, rates, side)
                    )[0]
                )
                rates[side] = _rate(answers[side])
                live.update(self._panels(texts, rates), refresh=True)
        return answers

    def _shower(
        self, live: Live, texts: list[str], rates: list[str], side: int
    ) -> Callable[[str], None]:
        shown = [0.0]

        def show(text: str) -> None:
            texts[side] += text
            if time.monotonic() - shown[0] > 0.05:
                shown[0] = time.monotonic()
                live.update(self._panels(texts, rates), refresh=True)

        return show

    def _panels(self, texts: list[str], rates: list[str]) -> RenderableType:
        from rich.console import Group
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        panels = [
            Panel(
                Text(text),
                title=Text(title),
                title_align="left",
                subtitle=Text(rate, style="dim"),
                subtitle_align="right",
            )
            for text, title, rate in zip(
                texts,
                (f"base  {self.base_title}", f"adapter  {self.adapter_title}"),
                rates,
                strict=True,
            )
        ]
        if self.out.console.width < 80:
            return Group(*panels)
        grid = Table.grid(expand=True)
        grid.add_column(ratio=1)
        grid.add_column(ratio=1)
        grid.add_row(*panels)
        return grid
