"""What a method does not declare is refused with an error, and never skipped in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterhub import __version__
from adapterhub.compose.fit import check_stackable
from adapterhub.compose.members import open_member, outline
from adapterhub.domain.manifest import CONFIG_FILE, MANIFEST_FILE, WEIGHTS_FILE, Manifest
from adapterhub.domain.match import record_of
from adapterhub.domain.method import Capability
from adapterhub.domain.protocols import AttachedAdapter
from adapterhub.errors import CapabilityError
from adapterhub.formats.adapter_config import encode_config
from adapterhub.formats.manifest import encode_manifest
from adapterhub.hub.folder import AdapterFolder, read_folder
from adapterhub.models.loader import Base
from adapterhub.plugin.catalog import catalog
from adapterhub.runtime.attach import Rack
from adapterhub.testing.ground import Ground
from adapterhub.testing.promises import promise
from adapterhub.testing.tiny import add_tiny_base
from adapterhub.train.checks import check_method


class Refusing(Ground):
    @promise(lacks=Capability.TRAIN)
    def test_training_it_is_refused(self, base: Base) -> None:
        with pytest.raises(CapabilityError):
            check_method(self.record, base.spec)
        assert self.attach(base).parameters() == {}, "it has parameters that nothing trains"

    @promise(lacks=Capability.STACK)
    def test_stacking_it_is_refused(self, base: Base, tmp_path: Path) -> None:
        folder = self.stored(base, self.attach_shaken(base), tmp_path)
        with pytest.raises(CapabilityError):
            check_stackable([outline(open_member("./stored", folder))])

    @promise(lacks=Capability.QUANTIZED_BASE)
    def test_a_quantized_base_is_refused(
        self, place: tuple[str, str], base: Base, home: Path, tmp_path: Path
    ) -> None:
        if place[1] == "bf16":
            return
        # Its dense shadow has the quantized scheme too, and a method may refuse that by itself.
        unquantized = add_tiny_base(place[0], "bf16", home)
        folder = self.stored(unquantized, self.attach_shaken(unquantized), tmp_path)
        with pytest.raises(CapabilityError):
            Rack(base).attach("one", folder)

    def stored(self, base: Base, adapter: AttachedAdapter, folder: Path) -> AdapterFolder:
        """The adapter as a folder that every command reads."""
        from safetensors.torch import save_file

        record = catalog().methods[self.record.stored_as or self.method]
        manifest = Manifest(
            method=record.name,
            config_version=record.config_version,
            base=record_of(base.spec),
            written_by=f"adapterhub {__version__}",
        )
        (folder / CONFIG_FILE).write_bytes(encode_config(adapter.config))
        (folder / MANIFEST_FILE).write_bytes(encode_manifest(manifest))
        if record.tensors:
            save_file(adapter.state(), folder / WEIGHTS_FILE)
        return read_folder(folder)
