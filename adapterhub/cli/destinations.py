"""What `lint` and `export` share: find the adapter, the base it is for, and its facts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from adapterhub.cli.fetching import pull_with_bar
from adapterhub.cli.output import Output
from adapterhub.domain.refs import parse_ref
from adapterhub.errors import MismatchError, NotFoundError
from adapterhub.hub.adapter_facts import read_facts
from adapterhub.hub.folder import named_path, read_folder

if TYPE_CHECKING:
    from adapterhub.domain.base import BaseSpec
    from adapterhub.domain.destination import AdapterFacts
    from adapterhub.domain.manifest import BaseRecord


def folder_of(subject: str, out: Output) -> Path:
    path = named_path(subject)
    return pull_with_bar(parse_ref(subject), out).folder if path is None else path


def named_facts(subject: str, base_name: str | None, out: Output) -> AdapterFacts:
    folder = read_folder(folder_of(subject, out))
    base = home_base(folder.manifest.base, base_name)
    return read_facts(folder, name=subject, family=base.family if base else None)


def home_base(record: BaseRecord, name: str | None) -> BaseSpec | None:
    """The named base, or the one here that the record means, or None.

    Raises MismatchError when the named one is another than the record's.
    """
    from adapterhub.domain.match import another_base, match_base
    from adapterhub.models.bases import base_for, find_base

    if name is None:
        try:
            return base_for(record)
        except (NotFoundError, MismatchError):
            return None
    spec = find_base(name)
    found = match_base(record, spec)
    if not found.fits:
        raise another_base("the adapter", record, spec, found)
    return spec
