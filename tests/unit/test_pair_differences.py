"""The list of known differences between bulk writes and their per-row equivalents."""

import pytest

from tests.acceptance.pairs import differences

FIRST, SECOND, THIRD = ("a", "save()", 1), ("a", "save()", 7), ("b", "UPDATE, executemany()", 1)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(differences, "FILE", tmp_path / "differences.txt")
    differences.FILE.touch()
    monkeypatch.setattr(differences, "_ran", {})
    differences.listed.cache_clear()
    yield differences.FILE
    differences.listed.cache_clear()


def test_a_written_list_reads_back(file):
    file.write_text(differences.as_text([FIRST, SECOND, THIRD]), encoding="utf-8")

    assert differences.listed() == {FIRST, SECOND, THIRD}
    assert file.read_text() == "a\n    save(): 1, 7\n\nb\n    UPDATE, executemany(): 1\n"


def test_writing_replaces_the_cells_that_ran_and_keeps_the_others(file):
    file.write_text(differences.as_text([FIRST, SECOND]), encoding="utf-8")
    differences._ran.update({FIRST: False, THIRD: True})

    differences.write([FIRST, SECOND, THIRD])

    assert file.read_text() == differences.as_text([SECOND, THIRD])


def test_a_cell_without_a_case_leaves_the_list(file):
    file.write_text(differences.as_text([FIRST, THIRD]), encoding="utf-8")

    differences.write([FIRST])

    assert file.read_text() == differences.as_text([FIRST])


def test_no_differences_leave_an_empty_file(file):
    differences.write([FIRST])

    assert file.read_text() == ""
    assert differences.listed() == frozenset()
