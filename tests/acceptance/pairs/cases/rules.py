"""Row rules over what a receiver assigns before the write."""

from django.db.models import F, Q
from django.db.models.signals import pre_save

import bulksafe
from tests.acceptance.pairs.case import CREATE, UPDATE, case
from tests.apps.columns.trying import install


def _assign(m, name, value):
    def assign(sender, instance, **kwargs):
        setattr(instance, name, value(instance))

    return [(pre_save, m.Item, assign)]


def _check(m):
    install(
        m.Item,
        bulksafe.Check(
            Q(total__gte=F("price")), name="total", message="The total is below the price."
        ),
    )


@case(
    "a Check that only the receiver satisfies",
    letter="f",
    prepare=_check,
    kinds=(CREATE, UPDATE),
    row=lambda m, n: {"name": f"row {n}", "price": n, "total": -1},
    values={"price": F("price") + 5, "total": 0},
    new=lambda n: {"price": 50 + n, "total": 0},
)
def satisfied(m):
    return _assign(m, "total", lambda row: row.price + 1)


@case(
    "a Check that the receiver breaks",
    letter="f",
    prepare=_check,
    kinds=(CREATE, UPDATE),
    row=lambda m, n: {"name": f"row {n}", "price": 1, "total": 10},
    values={"price": 9},
    new=lambda n: {"price": 9},
)
def broken(m):
    return _assign(m, "total", lambda row: 10 - row.price)


def _transition(m):
    install(
        m.Item,
        bulksafe.Transition(
            "state",
            {"draft": ["ready"], "ready": ["paid"], "paid": []},
            initial=["draft"],
            name="state",
        ),
    )


@case(
    "a Transition by way of the receiver",
    letter="f",
    prepare=_transition,
    kinds=(CREATE, UPDATE),
    row=lambda m, n: {"name": f"row {n}", "state": "draft"},
    values={"state": "paid"},
    new=lambda n: {"state": "paid"},
)
def allowed_state(m):
    return _assign(m, "state", lambda row: "ready" if row.state == "paid" else "draft")


@case(
    "a Transition that the receiver makes illegal",
    letter="f",
    prepare=_transition,
    kinds=(CREATE, UPDATE),
    row=lambda m, n: {"name": f"row {n}", "state": "draft"},
    values={"state": "ready"},
    new=lambda n: {"state": "ready"},
)
def illegal_state(m):
    return _assign(m, "state", lambda row: "paid" if row.state == "ready" else row.state)


def _immutable(m):
    install(m.Item, bulksafe.Immutable("note", name="note"))


@case(
    "an Immutable that the receiver puts back",
    letter="f",
    prepare=_immutable,
    kinds=(CREATE, UPDATE),
    values={"note": "new", "price": 3},
    new=lambda n: {"note": "new", "price": n},
)
def put_back(m):
    return _assign(m, "note", lambda row: "")


@case(
    "an Immutable that the receiver changes",
    letter="f",
    prepare=_immutable,
    kinds=(CREATE, UPDATE),
)
def changed(m):
    return _assign(m, "note", lambda row: f"at {row.price}")


@case(
    "a Compute over what the receiver assigns",
    letter="f",
    prepare=lambda m: install(m.Item, bulksafe.Compute("total", F("price") * F("quantity"))),
    kinds=(CREATE, UPDATE),
    values={"price": F("price") + 2},
)
def computed(m):
    return _assign(m, "quantity", lambda row: row.price + 2)
