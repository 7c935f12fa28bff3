"""Links between the pages, and from the README, lead to a file and a heading of it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    *sorted(path for path in DOCS.rglob("*.md") if "_build" not in path.parts),
]

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_LABEL = re.compile(r"^\(([\w-]+)\)=$", re.MULTILINE)
_FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)


def prose(page):
    return _FENCE.sub("", page.read_text())


def slug(heading):
    """As GitHub and MyST make it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(page):
    text = prose(page)
    return {slug(heading) for heading in _HEADING.findall(text)} | set(_LABEL.findall(text))


def broken(page):
    for target in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists():
            yield f"{target}: no such file"
        elif anchor and linked.suffix == ".md" and anchor not in anchors(linked):
            yield f"{target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_links_of_a_page_resolve(page):
    assert list(broken(page)) == []


def test_a_broken_link_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A heading\n\n[a](page.md#a-heading) [b](#b-heading) [c](other.md)\n")

    assert list(broken(page)) == ["#b-heading: no such heading", "other.md: no such file"]


def test_pages_that_the_code_names_exist():
    named = {
        found
        for path in (ROOT / "bulksafe").rglob("*.py")
        for found in re.findall(r"docs/[\w/-]+\.md(?:#[\w-]+)?", path.read_text())
    }

    assert "docs/errors.md" in named
    for name in named:
        path, _, anchor = name.partition("#")
        assert (ROOT / path).exists(), name
        # The anchors of errors.md have a test of their own: the id is filled in.
        assert path == "docs/errors.md" or not anchor or anchor in anchors(ROOT / path), name
