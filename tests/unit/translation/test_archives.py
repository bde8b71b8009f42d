"""Files are read out of archives where they lie, and broken archives refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapterhub.errors import FormatError, UsageError
from adapterhub.translation import archives
from adapterhub.translation.archives import read_archive
from tests.catalog_files import deb, tarred, zipped

FILES = {"a/ko.po": b"one", "a/readme": b"two", "ko.po": b"three"}
WANTED = {"a/ko.po": b"one", "ko.po": b"three"}
MADE = {
    "x.whl": zipped(FILES),
    "x.zip": zipped(FILES),
    "x.tar.gz": tarred(FILES),
    "x.tar.xz": tarred(FILES, packing="xz"),
    "x.tar": tarred(FILES, packing=""),
    "x.deb": deb({f"./{name}": data for name, data in FILES.items()}),
}


def wanted(name: str) -> bool:
    return name.endswith(".po")


def write(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", MADE)
def test_what_is_wanted_is_read(name: str, tmp_path: Path) -> None:
    found = read_archive(write(tmp_path, name, MADE[name]), wanted)
    found.pop("control", None)
    assert found == WANTED
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", MADE)
def test_what_is_cut_off_is_refused(name: str, tmp_path: Path) -> None:
    # Behind the second file of a plain tar, in the midst of the others.
    cut = MADE[name][: 2048 if name == "x.tar" else len(MADE[name]) // 2]
    with pytest.raises(FormatError, match=name.replace(".", r"\.")) as caught:
        read_archive(write(tmp_path, name, cut), wanted)
    assert caught.value.hint


def test_a_package_in_zstd_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="packed with zst") as caught:
        read_archive(write(tmp_path, "x.deb", deb({}, packing="zst")), wanted)
    assert caught.value.hint == "dpkg-deb -x x.deb DIR, then name that folder: ./DIR"


@pytest.mark.parametrize("name", ["x.zip", "x.tar.xz"])
def test_what_unfolds_to_too_much_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 1000)
    large = {"ko.po": bytes(100_000)}
    data = zipped(large) if name == "x.zip" else tarred(large, packing="xz")
    with pytest.raises(FormatError, match="more than 1,000 bytes"):
        read_archive(write(tmp_path, name, data), wanted)
