"""The condition of a ``Check`` as an SQL function, for queries at run time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bulksafe.planning import fields
from bulksafe.planning.expressions import compile_expression
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bulksafe.declarations import Check
    from bulksafe.planning.subject import Subject


@dataclass(frozen=True)
class RuleFunction:
    """A condition as an SQL function, for run-time queries of a trigger function.

    Names in the condition are resolved when the function is created: the queries run with the
    rights of the function's owner, and only ``pg_catalog`` may be on their search_path.
    """

    function: dict[str, str]
    reads: dict[str, str]

    def called(self, row: str) -> dict[str, str]:
        return {"rule": self.function["function"], "rule_arguments": self.arguments(row)}

    def arguments(self, row: str) -> str:
        columns = map(quoting.identifier, self.reads)
        return ", ".join(f"{column} => {row}.{column}" for column in columns)


def rule_function(check: Check, subject: Subject) -> RuleFunction:
    condition = compile_expression(
        subject.model, check.condition, bare=True, annotations=check.annotations
    )
    function = {
        "function": subject.owned("rule"),
        "template": "rule_function",
        "condition": condition.sql,
    }
    return RuleFunction(function, types_of(condition.reads))


def types_of(reads: Iterable[tuple[str, fields.Field]]) -> dict[str, str]:
    columns = sorted((field for _, field in reads), key=lambda field: str(field.column))
    return {str(field.column): fields.type_of(field) for field in columns}
