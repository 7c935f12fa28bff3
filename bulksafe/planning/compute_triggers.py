"""Plans the triggers of a ``Compute``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bulksafe.declarations import Compute
from bulksafe.declarations.modes import NEW as NEW_ROWS
from bulksafe.planning import fields, rules
from bulksafe.planning.expressions import compile_expression
from bulksafe.planning.plan import triggers
from bulksafe.planning.rule_function import types_of
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bulksafe import compiler
    from bulksafe.planning.subject import Subject


@triggers.register(Compute)
def _compute(compute: Compute, subject: Subject) -> compiler.Trigger:
    field = fields.column_field(subject.model, compute.field)
    value = compile_expression(subject.model, compute.expression, bare=True)
    rules.refuse_computed_value(compute, field, value)
    function, guard, unmuted = (subject.owned(kind) for kind in ("value", "guard", "unmuted"))
    shared = {"template": "compute_trigger", "column": field.column, "value": function}
    computing = {"function": function, "template": "value_function", "expression": f"({value.sql})"}
    written = {"trigger": subject.pgid, "function": subject.pgid, **shared}
    parts: dict[str, Any] = {
        "column": field.column,
        "column_type": fields.type_of(field),
        "reads": types_of(value.reads),
    }
    if subject.is_observed:
        return subject.compiled(
            functions=[computing, subject.record(subject.pgid)],
            triggers=[{**written, "timing": "AFTER"}],
            **parts,
        )
    spared = compute.mode == NEW_ROWS
    inputs = _inputs([field, *(read for _, read in value.reads)]) if spared else {}
    return subject.compiled(
        functions=[
            computing,
            {"function": unmuted, "template": "unmuted_function"},
            {
                "function": subject.pgid,
                "template": "compute_function",
                "body": "compute_new" if spared else "compute",
                "column": field.column,
                "value": function,
                "is_unmuted": unmuted,
                **inputs,
            },
            subject.refusal(guard, **({"body": "refuse_computed"} if spared else {}), **inputs),
        ],
        triggers=[
            {**written, "timing": "BEFORE"},
            {"trigger": guard, "timing": "AFTER", "function": guard, **shared},
        ],
        **parts,
    )


def _inputs(among: Iterable[fields.Field]) -> dict[str, str]:
    """SQL arrays of the old and the new values that decide whether the value is computed again.

    As text, and with every name qualified: the function has the search_path of the writer, who
    could otherwise bring an operator along.
    """
    columns = sorted({str(field.column) for field in among})
    exact = '::pg_catalog.text COLLATE pg_catalog."C"'
    return {
        f"{row}_inputs": "ARRAY[{}]".format(
            ", ".join(f"{row.upper()}.{quoting.identifier(name)}{exact}" for name in columns)
        )
        for row in ("old", "new")
    }
