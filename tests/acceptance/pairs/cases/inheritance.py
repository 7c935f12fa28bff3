"""Multi-table inheritance: receivers on the parent, on a child, on both, on a sibling."""

from django.db.models import F
from django.db.models.signals import post_delete, post_save, pre_delete, pre_save

from tests.acceptance.pairs.case import DELETE, case

#: Django refuses bulk_create(), and a raw INSERT writes to one of the two tables only.
CHILD = (
    "save()",
    "save() again",
    "bulk_update()",
    "update()",
    "UPDATE",
    "instance.delete()",
    "delete()",
)


def _receivers(m, *models):
    def note(sender, instance, signal, created=None, **kwargs):
        names = {pre_save: "pre", post_save: "post", pre_delete: "gone", post_delete: "left"}
        m.calls.append((names[signal], sender.__name__, instance.name, created))

    return [
        (signal, model, note)
        for model in models
        for signal in (pre_save, post_save, pre_delete, post_delete)
    ]


def _child(**options):
    return {
        "letter": "h",
        "model": "Restaurant",
        "row": lambda m, n: {"name": f"row {n}"},
        "only": CHILD,
        **options,
    }


OWN = _child(values={"stars": F("stars") + 1}, new=lambda n: {"stars": n})
PARENTS = _child(values={"visits": F("visits") + 1}, new=lambda n: {"visits": n})
BOTH = _child(
    values={"stars": 2, "visits": 3},
    new=lambda n: {"stars": n, "note": f"n {n}"},
    only=tuple(title for title in CHILD if title != "UPDATE"),
)


@case("receivers on the child, its own column", **OWN)
def on_the_child(m):
    return _receivers(m, m.Restaurant)


@case("receivers on the parent, the child's column", **OWN)
def on_the_parent(m):
    return _receivers(m, m.Place)


@case("receivers on both, the child's column", **OWN)
def on_both(m):
    return _receivers(m, m.Place, m.Restaurant)


@case("receivers on both and on a sibling, columns of both tables", **BOTH)
def on_all(m):
    return _receivers(m, m.Place, m.Restaurant, m.Bar)


@case(
    "receivers on the child, the parent's column",
    **PARENTS | {"only": tuple(title for title in CHILD if title != "UPDATE")},
)
def parents_column(m):
    return _receivers(m, m.Restaurant)


@case(
    "a receiver of the child that assigns a column of the parent",
    **OWN | {"only": tuple(title for title in CHILD if "delete" not in title)},
)
def assigned_to_the_parent(m):
    def assign(sender, instance, **kwargs):
        instance.note = f"{instance.stars} stars"

    return [(pre_save, m.Restaurant, assign)]


@case(
    "rows of the parent's table that are restaurants",
    letter="h",
    model="Place",
    setup=lambda m: [m.Restaurant(name=f"restaurant {n}").save() for n in range(2)],
    values={"visits": F("visits") + 1},
    new=lambda n: {"visits": n},
    only=("save() again", "bulk_update()", "update()", "UPDATE", "UPDATE, executemany()"),
)
def rows_of_the_parent(m):
    # The child's receivers also run, which Django does not call: see docs/per-row.md.
    return _receivers(m, m.Place)


@case(
    "the parent of a child is deleted",
    letter="h",
    model="Place",
    setup=lambda m: [m.Restaurant(name=f"restaurant {n}").save() for n in range(2)],
    kinds=(DELETE,),
    only=("instance.delete()", "delete()"),
)
def parent_deleted(m):
    return _receivers(m, m.Place, m.Restaurant, m.Bar)
