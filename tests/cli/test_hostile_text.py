"""Names that others chose appear on a terminal as they are written, and command nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterhub.cli.output import Output, printable
from tests.adapter_files import f32, lora_tensors, write_lora
from tests.command_line import CommandLine
from tests.hub_server import running_hub

TITLE = "acme/x\x1b]0;owned\x07"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [bold] 한국어", "plain [bold] 한국어"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\tc", r"a\nb\tc"),
        ("\x9b2J", r"\x9b2J"),
        ("\u202egnp", r"\u202egnp"),
        ("\udc80", r"\udc80"),
    ],
)
def test_what_a_terminal_would_obey_is_spelled_out(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_nothing_that_is_said_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.line(f"{TITLE}\nsecond\tline")
    out.say(TITLE)
    out.next(f"{TITLE}\nerror: forged")
    out.table(("name",), [(f"{TITLE}\nforged",)])
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "\x07" not in said.out + said.err
    assert "second\tline\n" in said.out
    assert [line[:5] for line in said.err.splitlines()] == ["acme/", "next:"]
    assert "\nforged" not in said.out


def test_a_name_that_a_hub_made_up_is_shown_and_not_obeyed(adapterhub: CommandLine) -> None:
    with running_hub() as hub:
        hub.put(TITLE, {"adapter_config.json": b'{"peft_type": "LORA"}'})
        done = adapterhub.having(HF_ENDPOINT=hub.url).ok("search", "--remote", "hub")
    assert r"acme/x\x1b]0;owned\x07" in done.out
    assert "\x1b" not in done.out + done.err


def test_a_file_name_is_not_markup(adapterhub: CommandLine, tmp_path: Path) -> None:
    shape = (2, 131072)
    tensors = {n: f32(shape if "lora_A" in n else shape[::-1]) for n in lora_tensors()}
    folder = write_lora(tmp_path / "adapter", tensors=tensors)
    (folder / "[").mkdir()
    (folder / "[" / "x].json").write_text("{}" + " " * (2 << 20))
    adapterhub.ok("push", folder, "acme/tiny-lora")
    done = adapterhub.on_terminal("pull", "acme/tiny-lora")
    assert done.code == 0, done.out
    assert "[/x].json" in done.out
