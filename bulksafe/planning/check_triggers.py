"""Plans the triggers of a ``Check``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pgtrigger

from bulksafe.declarations import Check
from bulksafe.declarations.modes import NEW as NEW_ROWS
from bulksafe.planning import fields, rules
from bulksafe.planning.expressions import NEW, OLD, compile_expression
from bulksafe.planning.plan import triggers
from bulksafe.planning.rule_function import RuleFunction, rule_function
from bulksafe.planning.subject import Subject, move_trigger, row_trigger, update_triggers
from bulksafe.rendering import quoting

if TYPE_CHECKING:
    from bulksafe import compiler


@triggers.register(Check)
def _check(check: Check, subject: Subject) -> compiler.Trigger:
    events = rules.events_of(check, subject.model)
    deletes = events == [pgtrigger.Delete]
    condition = compile_expression(
        subject.model,
        check.condition,
        row=OLD if deletes else NEW,
        annotations=check.annotations,
    )
    rules.refuse_missing_row(check, events, condition)
    # Unknown passes: the negation of unknown is not true.
    violated = f"NOT ({condition.sql})"
    spares = check.mode == NEW_ROWS and pgtrigger.Update in events and OLD not in condition.rows()
    violated_before = f"NOT ({_before(check, subject)})" if spares else ""
    if check.deferred:
        return _deferred(check, subject, violated, violated_before)
    if spares and events != [pgtrigger.Update]:
        return _spared(subject, violated, violated_before)
    listed = " OR ".join(event.name for event in events)
    if events == [pgtrigger.Update]:
        broken = _broken(violated, violated_before) if spares else violated
        functions = [subject.verdict_on_change(subject.pgid)]
        parts = update_triggers(subject, broken)
    else:
        functions = [subject.verdict(subject.pgid)]
        parts = [row_trigger(subject.pgid, subject.pgid, listed, violated)]
    if not deletes:
        return subject.compiled(functions=functions, triggers=parts)
    rule = rule_function(check, subject)
    function, trigger = _truncate(subject, rule)
    return subject.compiled(
        functions=[*functions, rule.function, function],
        triggers=[*parts, trigger],
        reads=rule.reads,
    )


def _before(check: Check, subject: Subject) -> str:
    """The condition over the row before the change."""
    annotations = check.annotations
    return compile_expression(
        subject.model, check.condition, annotations=annotations, before=True
    ).sql


def _broken(violated: str, violated_before: str) -> str:
    """The condition of a change that breaks the row. An unknown old row kept the rule."""
    return f"{violated} AND ({violated_before}) IS NOT TRUE"


def _spared(subject: Subject, violated: str, violated_before: str) -> compiler.Trigger:
    """A rule that spares rows that were broken before."""
    moved = subject.owned("moved")
    update = row_trigger(
        subject.owned("update"), subject.pgid, "UPDATE", _broken(violated, violated_before)
    )
    return subject.compiled(
        functions=[
            subject.refusal(subject.pgid, body="refuse_arriving"),
            {"function": moved, "template": "function", "body": "move", "security": ""},
        ],
        triggers=[
            row_trigger(subject.pgid, subject.pgid, "INSERT", violated),
            update,
            move_trigger(subject, moved, f"{violated} AND {violated_before}"),
        ],
    )


def _deferred(
    check: Check, subject: Subject, violated: str, violated_before: str
) -> compiler.Trigger:
    """
    Args:
        violated_before: with ``mode="new"``, the condition of a row that was broken before.
    """
    columns = [quoting.identifier(c) for c in fields.primary_key_columns(subject.model)]
    rule = rule_function(check, subject)
    function = {
        "security": "SECURITY DEFINER",
        **rule.called('"new"'),
        "pk_columns": ", ".join(f'"new".{column}' for column in columns),
        "pk_parameters": ", ".join(f"${number}" for number, _ in enumerate(columns, 1)),
        "pk_values": ", ".join(f"NEW.{column}" for column in columns),
    }
    if subject.is_observed:
        function = subject.record(
            subject.pgid,
            **function,
            body="observe_deferred",
            query="observe_deferred_query",
            image_parameter=f"${len(columns) + 1}",
        )
    elif violated_before:
        function = subject.refusal(
            subject.pgid,
            **function,
            body="recheck_new",
            query="recheck_new_query",
            old_arguments=rule.arguments("OLD"),
            new_arguments=rule.arguments("NEW"),
        )
    else:
        function = subject.refusal(subject.pgid, body="recheck", query="recheck_query", **function)
    trigger = {
        "trigger": subject.pgid,
        "template": "deferred_trigger",
        "events": "INSERT" if violated_before else "INSERT OR UPDATE",
        "condition": violated,
        "function": subject.pgid,
    }
    listed = [trigger]
    if violated_before:
        listed.append(
            {
                **trigger,
                "trigger": subject.owned("update"),
                "events": "UPDATE",
                "condition": f"{violated} OR {violated_before}",
            }
        )
    return subject.compiled(functions=[rule.function, function], triggers=listed, reads=rule.reads)


def _truncate(subject: Subject, rule: RuleFunction) -> tuple[dict[str, str], dict[str, str]]:
    name = subject.owned("truncate")
    called = rule.called('"old"')
    if subject.is_observed:
        query = "observe_truncate_query"
        function = subject.record(name, body="observe_truncate", query=query, **called)
    else:
        function = subject.refusal(
            name, body="truncate", query="truncate_query", security="SECURITY DEFINER", **called
        )
    return function, {"trigger": name, "template": "truncate_trigger", "function": name}
