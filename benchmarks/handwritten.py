"""The five rules as a project writes them with django-pgtrigger alone.

They are BEFORE triggers, as in pgtrigger's own documentation and in its ``Protect``, ``ReadOnly``
and ``FSM``. Rules over the old row are triggers of their own for UPDATE, so that no function has to
ask for ``TG_OP``.
"""

import pgtrigger

_BROKEN = {
    "discount": "NEW.discount < 0 OR NEW.discount > NEW.amount",
    "shipped": "NEW.status = 'shipped' AND NEW.shipped_at IS NULL",
    "number": "NEW.number IS DISTINCT FROM OLD.number",
    "initial": "NEW.status <> 'draft'",
    "status": """
        NEW.status IS DISTINCT FROM OLD.status
        AND NOT (
            (OLD.status = 'draft' AND NEW.status IN ('paid', 'cancelled'))
            OR (OLD.status = 'paid' AND NEW.status = 'shipped')
        )
    """,
}
_COMPUTE = "NEW.net := NEW.amount - NEW.discount;"
_INSERT_OR_UPDATE = pgtrigger.Insert | pgtrigger.Update


def _refusal(rule):
    return f"RAISE EXCEPTION 'broken rule: {rule}' USING ERRCODE = 'check_violation';"


def _if_broken(rule):
    return f"IF {_BROKEN[rule]} THEN {_refusal(rule)} END IF;"


def functions():
    """A trigger for each rule; the rule is in the PL/pgSQL function."""

    def check(rule, operation):
        return pgtrigger.Trigger(
            name=rule,
            when=pgtrigger.Before,
            operation=operation,
            func=f"{_if_broken(rule)} RETURN NEW;",
        )

    return [
        check("discount", _INSERT_OR_UPDATE),
        check("shipped", _INSERT_OR_UPDATE),
        pgtrigger.Trigger(
            name="net",
            when=pgtrigger.Before,
            operation=_INSERT_OR_UPDATE,
            func=f"{_COMPUTE} RETURN NEW;",
        ),
        check("number", pgtrigger.Update),
        check("initial", pgtrigger.Insert),
        check("status", pgtrigger.Update),
    ]


def one_function():
    """All rules in one function for INSERT and one for UPDATE: fewest calls, least modular."""

    def together(operation, *rules):
        return pgtrigger.Trigger(
            name=f"rules_{operation}".lower(),
            when=pgtrigger.Before,
            operation=operation,
            func=" ".join([*map(_if_broken, rules), _COMPUTE, "RETURN NEW;"]),
        )

    return [
        together(pgtrigger.Insert, "discount", "shipped", "initial"),
        together(pgtrigger.Update, "discount", "shipped", "number", "status"),
    ]


def conditions(when=pgtrigger.Before):
    """A trigger for each rule; the rule is a ``pgtrigger.Q``, and the function only refuses."""

    def check(rule, operation, condition):
        return pgtrigger.Trigger(
            name=rule,
            when=when,
            operation=operation,
            condition=condition,
            func=_refusal(rule),
        )

    def compute(operation, condition=None):
        return pgtrigger.Trigger(
            name=f"net_{operation}".lower(),
            when=pgtrigger.Before,
            operation=operation,
            condition=condition,
            func=f"{_COMPUTE} RETURN NEW;",
        )

    allowed = pgtrigger.Q(old__status="draft", new__status__in=["paid", "cancelled"]) | pgtrigger.Q(
        old__status="paid", new__status="shipped"
    )
    return [
        check(
            "discount",
            _INSERT_OR_UPDATE,
            pgtrigger.Q(new__discount__lt=0)
            | pgtrigger.Q(new__discount__gt=pgtrigger.F("new__amount")),
        ),
        check(
            "shipped",
            _INSERT_OR_UPDATE,
            pgtrigger.Q(new__status="shipped", new__shipped_at__isnull=True),
        ),
        compute(pgtrigger.Insert),
        compute(pgtrigger.Update, pgtrigger.AnyChange("amount", "discount", "net")),
        check("number", pgtrigger.Update, pgtrigger.AnyChange("number")),
        check("initial", pgtrigger.Insert, ~pgtrigger.Q(new__status="draft")),
        check(
            "status",
            pgtrigger.Update,
            pgtrigger.Q(old__status__df=pgtrigger.F("new__status")) & ~allowed,
        ),
    ]
