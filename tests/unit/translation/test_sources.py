"""A name or a path becomes the catalogs of one language, with version and licence."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from adapterhub.domain.gettext import Package
from adapterhub.errors import FormatError, MismatchError, NotFoundError, UsageError
from adapterhub.translation.package_facts import python_facts
from adapterhub.translation.sources import find_package
from tests.catalog_files import (
    CONTROL,
    COPYRIGHT,
    HEADER,
    WORDS,
    deb,
    greeter,
    mo,
    po,
    tarred,
    write_wheel,
)

MO = mo([(b"", b"Content-Type: text/plain; charset=UTF-8\n"), (b"Open", "열기".encode())])


def lay(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def facts(package: Package) -> tuple[str, str | None, str | None]:
    return package.name, package.version, package.licence


def names(package: Package) -> list[str]:
    return [catalog.name for catalog in package.catalogs]


def test_a_wheel_says_what_it_is(tmp_path: Path) -> None:
    found = find_package(str(write_wheel(tmp_path / "x.whl")), "ko")
    assert facts(found) == ("Greeter", "1.2", "MIT")
    assert names(found) == ["greeter/locale/ko/LC_MESSAGES/greeter.po"]
    assert [entry.source for entry in found.catalogs[0].entries] == list(WORDS)


def test_a_source_archive_does_too(tmp_path: Path) -> None:
    path = tmp_path / "greeter-1.2.tar.gz"
    about = b"Name: Greeter\nVersion: 1.2\nClassifier: License :: OSI Approved :: BSD License\n\n"
    path.write_bytes(tarred({"g/PKG-INFO": about, "g/po/ko.po": po(WORDS)}))
    assert facts(find_package(str(path), "ko")) == ("Greeter", "1.2", "BSD License")


def test_a_debian_package_does_too(tmp_path: Path) -> None:
    path = tmp_path / "greeter.deb"
    files = {
        "./usr/share/locale/ko/LC_MESSAGES/greeter.mo": MO,
        "./usr/share/doc/greeter/copyright": COPYRIGHT.encode(),
    }
    path.write_bytes(deb(files))
    found = find_package(str(path), "ko")
    assert facts(found) == ("greeter", "1.2-3", "GPL-2+")
    assert names(found) == ["usr/share/locale/ko/LC_MESSAGES/greeter.mo"]


def test_a_folder_and_a_single_catalog_have_a_name_alone(tmp_path: Path) -> None:
    folder = lay(tmp_path / "app", {"po/ko.po": po(WORDS), "po/de.po": po({})})
    assert facts(find_package(str(folder), "ko")) == ("app", None, None)
    single = lay(tmp_path, {"words.po": po(WORDS)}) / "words.po"
    assert facts(find_package(str(single), "ko")) == ("words", None, None)


def test_a_single_catalog_in_another_language_is_refused(tmp_path: Path) -> None:
    single = lay(tmp_path, {"words.po": po(WORDS)}) / "words.po"
    with pytest.raises(MismatchError, match="is in 'ko', not in 'ja'"):
        find_package(str(single), "ja")


def test_an_installed_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = greeter()
    record = "".join(f"{name},,\n" for name in files).encode()
    lay(tmp_path, {**files, "greeter-1.2.dist-info/RECORD": record})
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    assert facts(find_package("greeter", "ko")) == ("Greeter", "1.2", "MIT")


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """A Debian system with one package, of two domains."""
    paths = [f"usr/share/locale/ko/LC_MESSAGES/{domain}.mo" for domain in ("greet", "part")]
    listing = "".join(f"/{path}\n" for path in (*paths, "usr/share/locale/de/LC_MESSAGES/part.mo"))
    return lay(
        tmp_path / "root",
        {
            **dict.fromkeys(paths, MO),
            "var/lib/dpkg/info/greeter.list": listing.encode(),
            "var/lib/dpkg/info/other:amd64.list": b"/usr/bin/other\n",
            "var/lib/dpkg/status": f"Package: other\nVersion: 9\n\n{CONTROL}\n".encode(),
            "usr/share/doc/greeter/copyright": COPYRIGHT.encode(),
        },
    )


def test_a_debian_package_of_this_system_is_found(system: Path) -> None:
    link = system / "usr/share/locale/ko/LC_MESSAGES/alias.mo"
    link.symlink_to("greet.mo")
    with (system / "var/lib/dpkg/info/greeter.list").open("a") as listing:
        listing.write("/usr/share/locale/ko/LC_MESSAGES/alias.mo\n")
    found = find_package("greeter", "ko", system=system)
    assert facts(found) == ("greeter", "1.2-3", "GPL-2+")
    assert [Path(name).stem for name in names(found)] == ["greet", "part"]


def test_a_domain_is_found_and_its_package_named(system: Path) -> None:
    found = find_package("part", "ko", system=system)
    assert facts(found) == ("greeter", "1.2-3", "GPL-2+")
    assert [Path(name).stem for name in names(found)] == ["part"]


def test_a_domain_of_no_package_has_its_own_name(tmp_path: Path) -> None:
    lay(tmp_path, {"usr/share/locale-langpack/ko/LC_MESSAGES/alone.mo": MO})
    assert facts(find_package("alone", "ko", system=tmp_path)) == ("alone", None, None)


def test_the_only_region_will_do_and_the_exact_language_is_preferred(tmp_path: Path) -> None:
    folder = lay(tmp_path / "app", {"ko_KR/a.po": po(WORDS)})
    assert names(find_package(str(folder), "ko")) == ["ko_KR/a.po"]
    lay(folder, {"ko/a.po": po(WORDS)})
    assert names(find_package(str(folder), "ko")) == ["ko/a.po"]


def test_several_regions_are_a_question(tmp_path: Path) -> None:
    folder = lay(tmp_path / "app", {"zh_CN/a.po": po({}), "zh_TW/a.po": po({})})
    with pytest.raises(UsageError, match="several kinds of 'zh': zh_cn, zh_tw") as caught:
        find_package(str(folder), "zh")
    assert caught.value.hint == "choose one: --to zh_cn"
    assert names(find_package(str(folder), "zh_cn")) == ["zh_CN/a.po"]


def test_a_source_is_preferred_to_what_was_compiled_from_it(tmp_path: Path) -> None:
    folder = lay(tmp_path / "app", {"ko/a.po": po(WORDS), "ko/a.mo": MO, "ko/b.mo": MO})
    assert names(find_package(str(folder), "ko")) == ["ko/a.po", "ko/b.mo"]


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ("./none.whl", NotFoundError, "there is no file or folder none.whl"),
        ("./none.po", NotFoundError, "there is no file"),
        (
            "no-such-package",
            NotFoundError,
            "no package with catalogs, and no domain, is called 'no-such-pack",
        ),
        ("./text.txt", UsageError, "text.txt is no archive, catalog or folder"),
        ("./x.whl", NotFoundError, "x.whl has no catalog in 'ja'"),
    ],
)
def test_what_is_not_there_is_said(
    source: str,
    error: type[Exception],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_wheel(tmp_path / "x.whl")
    (tmp_path / "text.txt").write_text("x")
    with pytest.raises(error, match=said):
        find_package(source, "ja", system=tmp_path)


def test_a_broken_catalog_is_named_with_its_package(tmp_path: Path) -> None:
    path = write_wheel(tmp_path / "x.whl", {"a/ko/m.po": f'{HEADER}msgid "a\n'.encode()})
    with pytest.raises(FormatError, match=r"x\.whl: a/ko/m\.po line 5: a text that is not closed"):
        find_package(str(path), "ko")


def test_a_path_that_no_row_can_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(tarred({"a\x1b/ko.po": po(WORDS)}, packing=""))
    with pytest.raises(FormatError, match="is no text that can be shown"):
        find_package(str(path), "ko")


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ("License: MIT", "MIT"),
        ("License: Apache License\n       Version 2.0, January 2004", "Apache License"),
        ("License: BSD\nLicense-Expression: BSD-3-Clause", "BSD-3-Clause"),
        ("Classifier: License :: OSI Approved\nLicense: " + "x" * 200, None),
        ("Summary: none", None),
    ],
)
def test_a_licence_is_as_short_as_it_is_said(fields: str, licence: str | None) -> None:
    assert python_facts(f"Name: x\n{fields}\n\n").licence == licence
