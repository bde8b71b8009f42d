"""What people mistype and forget: two lines that name the thing, the fact and one next move."""

from __future__ import annotations

import pytest

from tests.adapter_files import lora_tensors, write_lora
from tests.command_line import CommandLine

# (words, exit code, error, hint); an ellipsis stands for the rest of the line.
NAMES = "names look like user/en2ko-lora, user/en2ko-lora@v1 or team:user/en2ko-lora"
BAD = [
    ("pul x", 2, "there is no command 'pul'", "did you mean 'pull'?"),
    ("zzz", 2, "there is no command 'zzz'", "adapterhub --help lists them"),
    ("base lst", 2, "No such command 'lst'...", "adapterhub base --help shows its options"),
    ("pull", 2, "Missing argument 'REF'", "adapterhub pull --help shows its options"),
    ("pull a/b c/d", 2, "Got unexpected extra argument (c/d)", "adapterhub pull --help..."),
    ("pull a/b --jsn", 2, "No such option '--jsn'...", "adapterhub pull --help..."),
    ("pull lora", 2, "'lora' is not the name of an adapter", NAMES),
    ("pull a/b@", 2, "'' in 'a/b@' is not a revision", "a revision is a commit, a tag..."),
    ("pull a/con", 2, "'con' in 'a/con' is a reserved name", "choose another name"),
    ("pull local:acme/tiny-lorra", 3, "no adapter is called acme/tiny-lorra on local...",
     "did you mean acme/tiny-lora?"),
    ("pull acme/tiny-lorra", 7, "local has no acme/tiny-lorra, and http://127.0.0.1:9 cannot...",
     "did you mean acme/tiny-lora?"),
    ("pull local:acme/tiny-lora@v9", 3, "acme/tiny-lora...", "..."),
    ("pull taem:a/b", 3, "no remote is called 'taem'", "did you mean 'team'?"),
    ("pull team:a/b", 7, "http://127.0.0.1:1 cannot be reached: Connection refused",
     "check the network and the address: adapterhub remote list"),
    ("remote add team http://127.0.0.1:2", 2, "the remote 'team' already is http://127.0.0.1:1",
     "forget it first: adapterhub remote rm team"),
    ("remote add local http://127.0.0.1:2", 2, "the remote 'local' is built in", "choose..."),
    ("remote add x /srv/adapters", 2, "'/srv/adapters' is not the address of a remote",
     "file:///path/to/folder or https://host"),
    ("remote rm nobody", 3, "no remote is called 'nobody'", "remotes: local, hub, team"),
    ("search --limit 0", 2, "Invalid value for '--limit': 0 is not in the range x>=1", "..."),
    ("show ./nothing", 3, "nothing is not a folder", "name an adapter's folder"),
    ("verify ./nothing", 3, "nothing is not a folder", "name an adapter's folder"),
    ("verify ./empty", 3, "empty is not an adapter: no adapterhub.json...", "name the folder..."),
    ("push ./nothing a/b", 3, "nothing is not a folder", "name an adapter's folder"),
    ("push ./adapter a/b@v1", 2, "a push makes a new revision; a/b@v1 already names one",
     "push to a/b"),
    ("push ./adapter team:a/b --to local", 2, "team:a/b is on team, not on local", "push to..."),
    ("rm acme/tiny-lora", 3, "acme/tiny-lora is not on this machine", "adapterhub list..."),
    ("rm acme/tiny-lora --remote", 2, "this asks before it removes anything, and nobody is...",
     "look with --dry-run, then add -y"),
    ("rm nobody/nothing --remote --dry-run", 3, "no adapter is called nobody/nothing on local...",
     "for another remote, name it: hub:nobody/nothing"),
    ("base show smol", 3, "no base is called 'smol' on this machine",
     "add it: adapterhub base add smol SOURCE"),
    ("base add x ./nothing", 2, "'./nothing' is neither a folder, a GGUF file nor a hub id", "..."),
    ("base add x a/b --scheme q4", 2, "Invalid value for '--scheme': 'q4' is not one of 'nf4',...",
     "adapterhub base add --help shows its options"),
    ("run ./adapter hello", 3, "the adapter's base, acme/tiny, is not on this machine",
     "add it: adapterhub base add NAME acme/tiny, or name another with --base"),
    ("run ./adapter hello --base smol", 3, "no base is called 'smol' on this machine", "add..."),
    ("run ./adapter", 2, "the prompt is empty", 'adapterhub run REF "...", or pipe one in'),
    ("run a/b+a/b hello", 2, "a/b appears twice in 'a/b+a/b'", "give it one weight: 2*a/b"),
    ("run 0*a/b hello", 2, "the weight 0 in '0*a/b' is of no use", "weights are finite..."),
    ("eval ./adapter --task iso-datse", 3, "no task is called 'iso-datse'",
     "did you mean 'iso-dates'?..."),
    ("eval ./adapter --task ./bad.jsonl", 6, "bad.jsonl line 2: not JSON:...", "each line is..."),
    ("eval ./adapter --task ./empty.jsonl", 6, "empty.jsonl has no rows", "a row is..."),
    ("eval ./adapter --task ./none.jsonl", 3, "there is no file none.jsonl", "check the path..."),
    ("stack ./adapter ./adapter", 2,
     "./adapter and ./adapter in ./adapter+./adapter are the same adapter",
     "give it one weight: 2*./adapter"),
    ("stack ./adapter ./other --weights 1", 2, "1 weights for 2 adapters", "give one weight..."),
    ("stack ./adapter ./other --strategy linaer", 3, "no strategy is called 'linaer'",
     "did you mean 'linear'?"),
    ("merge ./adapter --into nf4 -o new", 2,
     "quantizing merged weights rounds them anew, and what an adapter changed is often smaller...",
     "keep the adapter attached, merge --into bf16, or accept the loss with --lossy: it is..."),
    ("merge ./adapter -o new --no-measure --task iso-dates", 2,
     "--no-measure leaves nothing for --task and --text to do", "leave one of them out"),
    ("merge ./adapter -o new", 3, "the adapter's base, acme/tiny, is not on this machine",
     "add it: adapterhub base add NAME acme/tiny, or name another with --base"),
    ("train -o new --data ./bad.jsonl", 2, "training needs --base", "adapterhub train --base..."),
    ("train -o new --base smol --data x", 3, "no base is called 'smol' on this machine", "add..."),
    ("train -o adapter --base b --data x", 2, "adapter already holds an adapter",
     "name another folder, or add --overwrite"),
    ("train -o full --base b --data x --overwrite", 2,
     "full is not empty and holds no adapter, so it is never overwritten", "name a folder..."),
    ("train -o new --base b --data x --method lorra", 3, "no method is called 'lorra'",
     "did you mean 'lora'?"),
    ("train -o new --base b --data x --steps 0", 2, "--steps 0 is too small", "use 1 or more"),
    ("train -o new --base b --data x -O rank", 2, "--option 'rank' is no KEY=VALUE", "as in..."),
    ("train -o new --base b --data x -O rank=2 --rank 4", 2,
     "rank is given twice, by --rank and --option", "leave one out"),
    ("train -o new --base b --data x --patience 2", 2,
     "--patience needs losses on rows that are not trained on", "add --eval-data FILE..."),
    ("train -o new --base b --data x --lr-ratio 0", 2,
     "a ratio of 0 between two rates makes no sense", "--lr-ratio 16..."),
    ("train -o new recipe.toml --steps 500", 2,
     "--steps does not go with recipe.toml, which says it already",
     "change it in recipe.toml, or give options alone"),
    ("train -o new none.toml", 2, "Invalid value for '[RECIPE_FILE]': File 'none.toml' does not...",
     "adapterhub train --help shows its options"),
]  # fmt: skip


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """One adapter published, one remote that is away, some files; nothing here is changed."""
    place = tmp_path_factory.mktemp("machine")
    adapterhub = CommandLine(place / "home", cwd=place)
    write_lora(place / "adapter")
    write_lora(place / "other", tensors=lora_tensors(3), r=3)
    (place / "empty").mkdir()
    (place / "full").mkdir()
    (place / "full" / "holiday.jpg").write_bytes(b"")
    (place / "recipe.toml").write_text('base = "b"\ndata = "x"\n')
    (place / "empty.jsonl").write_text("\n\n")
    (place / "bad.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt":\n')
    adapterhub.ok("push", "adapter", "acme/tiny-lora")
    adapterhub.ok("remote", "add", "team", "http://127.0.0.1:1")
    return adapterhub


def begins(line: str, pattern: str) -> bool:
    start, dots, rest = pattern.partition("...")
    return line.startswith(start) if dots and not rest else line == pattern


@pytest.mark.parametrize(("words", "code", "error", "hint"), BAD, ids=[line[0] for line in BAD])
def test_a_slip_costs_two_lines(
    machine: CommandLine, words: str, code: int, error: str, hint: str
) -> None:
    done = machine(*words.split())
    said = done.err.splitlines()
    assert (done.code, done.out) == (code, "")
    assert [line[:7] for line in said] == ["error: ", "hint:  "], done.err
    assert begins(done.complaint[0], error), done.err
    assert begins(done.complaint[1], hint), done.err
