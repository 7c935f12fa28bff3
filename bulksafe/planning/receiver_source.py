"""Checks the source of a receiver for mistakes that its signature does not show."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import CodeType
from typing import TypeAlias

from bulksafe.declarations import Receiver
from bulksafe.declarations.parameters import EXTRAS
from bulksafe.planning.problems import Problem

_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def _tree(function: Callable[..., object]) -> ast.Module:
    """The parsed source of a receiver; empty if there is none."""
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    code = getattr(inspect.unwrap(function), "__code__", None)
    return ast.Module([], []) if code is None else _parsed(code)


@functools.lru_cache(maxsize=1024)
def _parsed(code: CodeType) -> ast.Module:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(code)))
    except (OSError, TypeError, SyntaxError):
        return ast.Module([], [])


def unnamed_problems(receiver: Receiver) -> Iterator[Problem]:
    """Report a receiver that looks up bulksafe's arguments in its ``**kwargs``."""
    found = {name for one in _outermost(_tree(receiver.function)) for name in _looked_for(one)}
    names = sorted(found & receiver.known_extras - receiver.extras, key=EXTRAS.index)
    if names:
        listed = " and ".join(f"“{name}”" for name in names)
        yield Problem(
            "W125",
            f"The receiver looks for {listed} in its **kwargs, which has Django's arguments only.",
            f"Add them as parameters: def receiver(sender, {', '.join(names)}, **kwargs).",
        )


def _outermost(node: ast.AST) -> Iterator[_Function]:
    """The outermost functions of a tree."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Function):
            yield child
        else:
            yield from _outermost(child)


def _looked_for(function: _Function) -> set[str]:
    """The names that a function looks up in its ``**kwargs``."""
    if function.args.kwarg is None:
        return set()
    kwargs = function.args.kwarg.arg
    body = function.body if isinstance(function.body, list) else [function.body]
    nodes = [node for part in body for node in _in_scope(part, kwargs)]
    keys = [key for node in nodes for key in _keys(node, kwargs)]
    if not all(isinstance(key, ast.Constant) for key in keys):
        # For example a loop over names: search the string literals of the function.
        keys += [node for node in nodes if isinstance(node, ast.Constant)]
    return {key.value for key in keys if isinstance(key, ast.Constant) and type(key.value) is str}


def _in_scope(node: ast.AST, name: str) -> Iterator[ast.AST]:
    """The nodes of a function, without inner functions that shadow the name."""
    if isinstance(node, _Function) and name in _parameters(node):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _in_scope(child, name)


def _parameters(function: _Function) -> set[str]:
    return {one.arg for one in ast.walk(function.args) if isinstance(one, ast.arg)}


def _keys(node: ast.AST, kwargs: str) -> list[ast.expr]:
    """The keys that an expression looks up in the dict with this name."""
    match node:
        case ast.Subscript(value=ast.Name(id=name), slice=key):
            pass
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id=name), attr="get" | "pop" | "setdefault"),
            args=[key, *_],
        ):
            pass
        case ast.Compare(left=key, ops=[ast.In() | ast.NotIn()], comparators=[ast.Name(id=name)]):
            pass
        case _:
            return []
    return [key] if name == kwargs else []


def looking_problems(receiver: Receiver) -> Iterator[Problem]:
    """Report a receiver whose result depends on the rows before its own."""
    if not receiver.is_inline or receiver.row_by_row is not None or receiver.batch:
        return
    if not receiver.signal_name.startswith("post_"):
        return
    looks = _looks_at_its_table(receiver)
    if looks:
        yield Problem(
            "I120",
            f"The receiver reads other rows of its table: “{looks}”. So bulk writes store "
            "each row before the receiver runs for the next one, which is slower.",
            "If the order does not matter, write row_by_row=False. If it does, "
            "write row_by_row=True.",
        )


#: Queryset methods whose result depends on other rows than the current one.
_LOOKING = frozenset({"count", "exists", "aggregate", "exclude", "first", "last", "latest"})


def _looks_at_its_table(receiver: Receiver) -> str:
    """The expression in the receiver's source that reads its table; empty without one."""
    tree = _tree(receiver.function)
    names = {"sender", *(model.__name__ for model in receiver.models())}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            chain = _chain(node.func)
            is_manager = len(chain) > 2 and chain[0] in names and "objects" in chain[1]
            if is_manager and node.func.attr in _LOOKING:
                return ast.unparse(node)
    return ""


def _chain(node: ast.expr) -> list[str]:
    """The names in a chain like ``sender.objects.filter(…).count``."""
    if isinstance(node, ast.Attribute):
        return [*_chain(node.value), node.attr]
    if isinstance(node, ast.Call):
        return _chain(node.func)
    return [node.id] if isinstance(node, ast.Name) else []
