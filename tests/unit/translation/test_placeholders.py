"""Which translations keep the marks of their source."""

from __future__ import annotations

import pytest

from adapterhub.translation.placeholders import disagreement, prose


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("%d of %s", "%2$s 중 %1$d"),
        ("%5.2f MB", "%.1f MB"),
        ("%(count)s of %(name)s", "%(name)s 중 %(count)s"),
        ("{0} and {name!r}", "{name!r} 및 {0}"),
        ("{{ user }} at ${HOME} of $list", "$list의 ${HOME} {{ user }}"),
        ("Update to %1", "%1(으)로 업데이트"),
        ("100%% done, a 20 % discount", "100%% 완료, 20 % 할인"),
        ("%<PRIu64> bytes", "%<PRIu64> 바이트"),
        ("_File", "파일(_F)"),
        ("Save &As...", "다른 이름으로 저장(&A)…"),
        ("set file_name", "file_name 설정"),
        ("<b>No</b> &amp; yes", "<b>아니오</b> &amp; 예"),
        ('<a href="/en">Help</a>', '<a href="/ko">도움말</a>'),
        ("Name:", "이름："),
        ("a < b and c > d", "a < b 이고 c > d"),
        ("\nUsage\n\n", "\n사용법\n\n"),
    ],
)
def test_these_agree(source: str, target: str) -> None:
    assert disagreement(source, target) is None


@pytest.mark.parametrize(
    ("source", "target", "kind"),
    [
        ("%d of %s", "%s 중 %d", "placeholders"),
        ("%s files", "파일", "placeholders"),
        ("%(name)s", "%(nmae)s", "placeholders"),
        ("%(name)s", "%(name)d", "placeholders"),
        ("{name}", "{이름}", "placeholders"),
        ("{} and {}", "{}", "placeholders"),
        ("_File", "파일", "mnemonics"),
        ("&Open", "열기", "mnemonics"),
        ("<b>No</b>", "<b>아니오<b>", "tags"),
        ("a &lt; b", "a < b", "tags"),
        ("Loading...", "불러옵니다", "ellipsis"),
        ("Name:", "이름", "ellipsis"),
        ("Usage\n", "사용법", "ellipsis"),
    ],
)
def test_these_do_not(source: str, target: str, kind: str) -> None:
    assert (disagreement(source, target) or "").startswith(kind)


def test_prose_is_what_is_no_mark() -> None:
    assert prose("<b>%(n)s files</b>&nbsp;in {place}").split() == ["files", "in"]
