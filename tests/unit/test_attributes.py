"""Every attribute of an object is assigned in ``__init__``, where a reader finds it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import bulksafe

PACKAGE = Path(bulksafe.__file__).parent

#: Where attributes may come into being.
_BEGINNINGS = {"__init__", "__post_init__", "__new__"}


#: By their names: two modules may have classes of one name.
Classes = dict[str, list[ast.ClassDef]]


def classes_of(*trees: ast.Module) -> Classes:
    found: Classes = defaultdict(list)
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.ClassDef):
            found[node.name].append(node)
    return found


def assigned_late(classes: Classes) -> Iterator[str]:
    """The attributes that a class assigns to ``self`` only outside ``__init__``."""
    for node in chain.from_iterable(classes.values()):
        known = set(_declared(node, classes))
        for method in _methods(node):
            if method.name not in _BEGINNINGS:
                yield from (f"{node.name}.{n}" for n in _assigned(method) if n not in known)


def _declared(node: ast.ClassDef, classes: Classes) -> Iterator[str]:
    """The attributes of the class body, of ``__init__`` and of bases in the package."""
    for base in node.bases:
        name = base.value if isinstance(base, ast.Subscript) else base
        if isinstance(name, ast.Name) and name.id != node.name:
            for found in classes.get(name.id, ()):
                yield from _declared(found, classes)
    for item in node.body:
        match item:
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Assign(targets=targets):
                for target in targets:
                    if isinstance(target, ast.Name):
                        yield target.id
                        if target.id in {"__slots__", "_fields_"}:
                            texts = (n for n in ast.walk(item.value) if isinstance(n, ast.Constant))
                            yield from (str(text.value) for text in texts)
            case ast.FunctionDef(name=name):
                yield name
    for method in _methods(node):
        if method.name in _BEGINNINGS:
            yield from _assigned(method)


def _methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for item in node.body:
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            yield item


def _assigned(method: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for node in ast.walk(method):
        is_stored = isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if is_stored and isinstance(node.value, ast.Name) and node.value.id == "self":
            yield node.attr


def test_every_attribute_is_assigned_in_init():
    paths = sorted(PACKAGE.rglob("*.py"))
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    assert sorted(set(assigned_late(classes_of(*trees)))) == []


def test_a_late_attribute_would_be_found():
    tree = ast.parse("class A:\n    def run(self):\n        self.late = 1\n")
    assert list(assigned_late(classes_of(tree))) == ["A.late"]
