"""Run the conformance tests of an installed plugin's records in a process of pytest's own.

Writes a test file, reads the report; what the promises are is known to `adapterhub.testing` only.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from adapterhub.errors import MissingExtraError, PluginError

Outcome = Literal["ok", "failed", "skipped"]
_CLASSES = {
    "adapterhub_methods": ("MethodConformance", "method"),
    "adapterhub_trainers": ("TrainerConformance", "trainer"),
    "adapterhub_strategies": ("StrategyConformance", "strategy"),
    "adapterhub_tasks": ("TaskConformance", "task"),
}
_WORTH = ("skipped", "ok", "failed")
_COUNT = re.compile(r"collected (\d+) items?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """A record to be checked, and the hook that declared it."""

    hook: str
    name: str

    @property
    def kind(self) -> str:
        return _CLASSES[self.hook][1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What became of one test of one record, on one base where it runs on several."""

    subject: str
    test: str
    variant: str
    outcome: Outcome
    reason: str | None = None


def subjects_of(records: Mapping[str, Sequence[Any]]) -> list[Subject]:
    """What can be checked of a plugin's records, by hook."""
    return [Subject(hook=hook, name=r.name) for hook in _CLASSES for r in records.get(hook, ())]


def run_checks(
    subjects: Sequence[Subject],
    *,
    options: Mapping[str, Any],
    bases: Sequence[tuple[str, str]],
    on_total: Callable[[int], None],
    on_test: Callable[[], None],
) -> list[Finding]:
    """Run every promise. Raises MissingExtraError without pytest or torch, PluginError when pytest
    itself does not get through."""
    if find_spec("pytest") is None or find_spec("torch") is None:
        raise MissingExtraError("testing", needed_for="checking a plugin")
    with tempfile.TemporaryDirectory(prefix="adapterhub-check-") as place:
        folder = Path(place)
        (folder / "pytest.ini").write_text("[pytest]\n")
        (folder / "test_promises.py").write_text(_source(subjects, options, bases))
        said = _run(folder, on_total, on_test)
        report = folder / "report.xml"
        if not report.is_file() or not (found := _findings(report, subjects)):
            raise PluginError(
                f"the tests did not run: {said[-1] if said else 'pytest said nothing'}",
                hint="ADAPTERHUB_TRACE_PLUGINS=1 adapterhub plugins shows what each plugin does",
            )
        return found


def outcome_of(findings: Sequence[Finding]) -> Outcome:
    """Of one test over all its bases: the worst that came out, and a skip if nothing did."""
    return max((finding.outcome for finding in findings), key=_WORTH.index)


def _source(
    subjects: Sequence[Subject], options: Mapping[str, Any], bases: Sequence[tuple[str, str]]
) -> str:
    lines = ["from adapterhub import testing", ""]
    for number, subject in enumerate(subjects):
        kit, attribute = _CLASSES[subject.hook]
        lines += [f"class Test{number}(testing.{kit}):", f"    {attribute} = {subject.name!r}"]
        if subject.kind in ("method", "trainer"):
            lines.append(f"    options = {dict(options)!r}")
        if subject.kind == "method":
            # Only its author knows whether a fresh adapter draws random numbers.
            lines.append("    seeded = None")
            lines += [f"    bases = {tuple(bases)!r}"] if bases else []
        lines.append("")
    return "\n".join(lines)


def _run(folder: Path, on_total: Callable[[int], None], on_test: Callable[[], None]) -> list[str]:
    """Run pytest; returns the lines it said."""
    words = [sys.executable, "-m", "pytest", "--verbose", "--tb=short", "-p", "no:cacheprovider"]
    words += ["-c", str(folder / "pytest.ini"), "--rootdir", str(folder)]
    words += ["--junitxml", str(folder / "report.xml"), str(folder / "test_promises.py")]
    environment = {k: v for k, v in os.environ.items() if k != "PYTEST_ADDOPTS"}
    said = []
    with subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env=environment,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                said.append(line.strip())
            counted = _COUNT.search(line)
            if counted:
                on_total(int(counted[1]))
            elif "::test_" in line and line.rstrip().endswith("%]"):
                on_test()
    return said


def _findings(report: Path, subjects: Sequence[Subject]) -> list[Finding]:
    """From pytest's own JUnit report, which it wrote from its own strings."""
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        number = re.search(r"\.Test(\d+)$", case.get("classname", ""))
        if number is None:
            continue
        test, _, variant = case.get("name", "").partition("[")
        outcome, reason = _outcome(case)
        found.append(
            Finding(
                subject=subjects[int(number[1])].name,
                test=test.removeprefix("test_"),
                variant=variant.removesuffix("]"),
                outcome=outcome,
                reason=reason,
            )
        )
    return found


def _outcome(case: ElementTree.Element) -> tuple[Outcome, str | None]:
    for tag in ("failure", "error"):
        broken = case.find(tag)
        if broken is not None:
            return "failed", broken.get("message", "").splitlines()[0]
    skipped = case.find("skipped")
    return ("ok", None) if skipped is None else ("skipped", skipped.get("message"))
