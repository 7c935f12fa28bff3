"""The identity of rows."""

from bulksafe.writer.changes import row_of
from tests.apps.mirrors.models import Place, Ware


class WithoutHash:
    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return f"<{self.value}>"

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other):
        return isinstance(other, WithoutHash) and self.value == other.value


def test_keys_without_a_hash_identify_rows():
    """A field may read its values as lists, or as objects of a class without a hash."""
    for model, one, same, other in [
        (Ware, WithoutHash("a"), WithoutHash("a"), WithoutHash("b")),
        (Ware, ["a", "b"], ["a", "b"], ["b", "a"]),
        (Place, (1, ["a"]), (1, ["a"]), (1, ["b"])),
    ]:
        assert row_of(model, one) == row_of(model, same)
        assert len({row_of(model, one), row_of(model, same), row_of(model, other)}) == 2
