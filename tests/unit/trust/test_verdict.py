"""One question, one answer: verdicts are kept, and asked anew when anything they rest on changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapterhub.compose.members import Member, open_member
from adapterhub.domain.manifest import Manifest
from adapterhub.domain.match import record_of
from adapterhub.errors import MismatchError, NoEffectError
from adapterhub.formats.adapter_config import decode_config, encode_config
from adapterhub.formats.manifest import encode_manifest
from adapterhub.hub.folder import AdapterFolder, adapter_digest, read_folder
from adapterhub.hub.verify import verify_folder
from adapterhub.models.loader import Base
from adapterhub.runtime.attach import Rack, method_of
from adapterhub.runtime.engine import ReferenceEngine, open_engine
from adapterhub.runtime.subjects import slot_of
from adapterhub.testing.practice import shake
from adapterhub.testing.tiny import add_tiny_base
from adapterhub.trust.attached import check_members, judge, judge_stored, verify_attached
from adapterhub.trust.record import record_probe
from adapterhub.trust.verdict import Verdict

pytestmark = pytest.mark.models


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def base(home: Path, monkeypatch: pytest.MonkeyPatch) -> Base:
    monkeypatch.setenv("ADAPTERHUB_HOME", str(home))
    return add_tiny_base("llama", "bf16", home)


class Counting(ReferenceEngine):
    """Counts how often it is asked."""

    asked = 0

    def score(self, *args: Any, **more: Any) -> Any:
        self.asked += 1
        return super().score(*args, **more)


def engine_for(base: Base) -> Counting:
    return Counting(Rack(base), base.chat)


def store(folder: Path, base: Base, *, size: float = 0.05, probed: bool = True) -> AdapterFolder:
    from safetensors.torch import save_file

    engine = open_engine(base)
    config = method_of("lora").new_config(base.spec, {"rank": 4})
    adapter = engine.rack.attach_fresh("made", "lora", config, seed=0)
    if size:
        shake(adapter, size=size)
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_bytes(encode_config(config))
    save_file(adapter.state(), folder / "adapter_model.safetensors", metadata={"format": "pt"})
    engine.rack.detach("made")
    manifest = Manifest(method="lora", config_version=1, base=record_of(base.spec))
    (folder / "adapterhub.json").write_bytes(encode_manifest(manifest))
    if probed:
        record_probe(folder, base, name="acme/a")
    return read_folder(folder)


def edit(folder: Path, **changes: Any) -> AdapterFolder:
    """Change the config as a clumsy hand would; the probe is made to belong to it, as if a tool
    had copied it over."""
    path = folder / "adapter_config.json"
    path.write_bytes(encode_config({**decode_config(path.read_bytes()), **changes}))
    found = read_folder(folder)
    assert found.manifest.probe is not None
    digest = adapter_digest(folder, found.config)
    probe = replace(found.manifest.probe, adapter=digest)
    manifest = replace(found.manifest, probe=probe)
    (folder / "adapterhub.json").write_bytes(encode_manifest(manifest))
    return read_folder(folder)


def attached(base: Base, folder: AdapterFolder) -> tuple[Counting, Member]:
    engine, member = engine_for(base), open_member("acme/a", folder)
    engine.rack.attach(slot_of(member), folder)
    return engine, member


def test_a_second_look_asks_nothing(base: Base, tmp_path: Path) -> None:
    folder = store(tmp_path / "a", base)
    first, member = attached(base, folder)
    said: list[str] = []
    assert check_members(first, [member], say=said.append) == ()
    assert (first.asked, len(said)) == (2, 1)
    first.rack.detach(slot_of(member))
    second, _ = attached(base, folder)
    assert check_members(second, [member], say=said.append) == ()
    assert (second.asked, len(said)) == (0, 1)
    assert judge_stored(folder.path, base.spec, device="cpu").cosine is not None
    assert judge(second, slot_of(member), folder, fresh=True).kept is False
    second.rack.detach(slot_of(member))


def test_a_verdict_that_cannot_be_read_is_asked_anew(base: Base, tmp_path: Path, home: Path) -> None:
    folder = store(tmp_path / "a", base, size=0.06)
    engine, member = attached(base, folder)
    before = set((home / "cache" / "verdicts").glob("*.json"))
    judge(engine, slot_of(member), folder)
    (made,) = set((home / "cache" / "verdicts").glob("*.json")) - before
    for data in (b"", b'{"code": 3}', b'{"surprise": 1}', b"[" * 99):
        made.write_bytes(data)
        assert judge(engine, slot_of(member), folder).kept is False
        assert judge(engine, slot_of(member), folder).kept is True
    engine.rack.detach(slot_of(member))


def test_an_edited_alpha_fails_and_is_remembered_where_it_is_allowed(
    base: Base, tmp_path: Path
) -> None:
    store(tmp_path / "a", base, size=0.07)
    folder = edit(tmp_path / "a", lora_alpha=800)
    engine, member = attached(base, folder)
    with pytest.raises(MismatchError, match="acme/a: it does not do what it did.* times as large"):
        check_members(engine, [member])
    said: list[str] = []
    allowed = check_members(engine, [member], allow={"probe-mismatch"}, say=said.append)
    assert allowed == ("probe-mismatch",)
    assert said[0].startswith("note: acme/a: it does not do what it did")
    engine.rack.detach(slot_of(member))


def test_an_untrained_adapter_has_no_effect_whether_or_not_it_has_a_probe(
    base: Base, tmp_path: Path
) -> None:
    folder = store(tmp_path / "a", base, size=0, probed=False)
    engine, member = attached(base, folder)
    with pytest.raises(NoEffectError, match="changes nothing"):
        check_members(engine, [member])
    engine.rack.detach(slot_of(member))
    with pytest.raises(NoEffectError, match="changes nothing"):
        record_probe(folder.path, base, name="acme/a")


def test_an_adapter_without_a_probe_is_welcome_and_said_to_have_none(
    base: Base, tmp_path: Path
) -> None:
    folder = store(tmp_path / "a", base, size=0.08, probed=False)
    problems, facts = verify_attached(folder.path, base.spec, device="cpu")
    assert problems == []
    assert "no probe to compare with: its maker recorded none" in facts["effect"]


def test_bytes_changed_after_the_probe_are_noticed_without_a_base(
    base: Base, tmp_path: Path
) -> None:
    folder = store(tmp_path / "a", base)
    assert verify_folder(folder.path).ok
    config = folder.path / "adapter_config.json"
    config.write_bytes(encode_config({**(folder.config or {}), "lora_alpha": 800}))
    assert [problem.code for problem in verify_folder(folder.path).problems] == ["stale-probe"]


def test_a_card_that_somebody_wrote_is_kept(base: Base, tmp_path: Path) -> None:
    folder = store(tmp_path / "a", base, probed=False)
    (folder.path / "README.md").write_text("# mine\n")
    assert record_probe(folder.path, base, name="acme/a").probe is not None
    assert (folder.path / "README.md").read_text() == "# mine\n"


def test_a_disk_that_keeps_nothing_costs_no_answer(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store(tmp_path / "a", base)
    engine, member = attached(base, folder)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ADAPTERHUB_HOME", str(tmp_path / "file"))
    assert judge(engine, slot_of(member), folder).verdict.code == ""
    engine.rack.detach(slot_of(member))


def test_a_verdict_says_what_was_found() -> None:
    assert str(Verdict()) == "NaN or infinite logits"
    found = Verdict(relative=0.1, flips=0.5, cosine=0.99, strength=1.0)
    assert str(found).endswith("beside its probe: cosine 0.990, strength 1.00")
    assert Verdict(code="no-effect", message="m").refuse("a", allow={"no-effect"}) == ("no-effect",)
