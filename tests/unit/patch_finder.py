"""Finds patches of Django, psycopg and pgtrigger: in the source, and in the running process."""

import ast
import dis
import functools
import inspect
import sys
import types
from dataclasses import dataclass

import psycopg
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.backends.utils import CursorWrapper
from django.db.migrations.migration import Migration
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState, ProjectState
from django.db.models import QuerySet
from django.db.models.deletion import Collector
from django.db.models.options import Options
from django.db.models.signals import ModelSignal
from django.db.models.sql import Query
from django.utils.functional import cached_property

FOREIGN = ("django", "psycopg", "pgtrigger")
_MUTATING = {"append", "clear", "extend", "insert", "pop", "remove", "setdefault", "sort", "update"}


def is_foreign(module):
    return str(module).partition(".")[0] in FOREIGN


# In a source.


@dataclass(frozen=True)
class Finding:
    """A place in a source, and what it changes."""

    line: int
    text: str


def find(source):
    """What a module changes of Django's, psycopg's and pgtrigger's objects."""
    finder = _Finder()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        finder.note_names(node)
    finder.visit(tree)
    return finder.found


#: Those of whose objects bulksafe gets hold.
CLASSES = (
    Collector,
    CursorWrapper,
    DatabaseWrapper,
    Migration,
    ModelSignal,
    ModelState,
    Operation,
    Options,
    ProjectState,
    Query,
    QuerySet,
    psycopg.Connection,
    psycopg.Cursor,
)


@functools.cache
def attributes():
    """The names of the attributes of these classes and of their objects."""
    return {name for one in CLASSES for name in [*dir(one), *_assigned(one)] if name[:2] != "__"}


@functools.cache
def containers():
    """The same without methods."""
    methods = {
        name
        for one in CLASSES
        for name in dir(one)
        if inspect.isroutine(inspect.getattr_static(one, name))
    }
    return attributes() - methods


def _assigned(owner):
    """The attributes that the methods of a class assign, mostly to ``self``."""
    for one in owner.__mro__:
        for method in filter(inspect.isfunction, vars(one).values()):
            for instruction in dis.get_instructions(inspect.unwrap(method)):
                if instruction.opname == "STORE_ATTR":
                    yield instruction.argval


class _Finder(ast.NodeVisitor):
    def __init__(self):
        self.found = []
        #: The names of a module that are Django's, psycopg's or pgtrigger's.
        self.names = set()

    def note_names(self, node):
        """Imports come first in a walk, and aliases after what they name."""
        match node:
            case ast.Import():
                for one in node.names:
                    if is_foreign(one.name):
                        self.names.add(one.asname or one.name.partition(".")[0])
            case ast.ImportFrom() if node.module and is_foreign(node.module):
                self.names |= {one.asname or one.name for one in node.names}
            case ast.Assign(targets=[ast.Name(id=name)]) if self.is_theirs(node.value):
                self.names.add(name)
            case ast.For(target=ast.Name(id=name), iter=ast.Tuple() | ast.List()):
                if any(map(self.is_theirs, node.iter.elts)):
                    self.names.add(name)

    def is_theirs(self, node):
        """Whether an expression is a name that was imported from them, or an attribute of one."""
        while isinstance(node, ast.Attribute):
            node = node.value
        return isinstance(node, ast.Name) and node.id in self.names

    def flag(self, node):
        self.found.append(Finding(node.lineno, ast.unparse(node)))

    def visit_Attribute(self, node):
        if isinstance(node.ctx, ast.Store | ast.Del) and self.changes(node):
            self.flag(node)
        self.generic_visit(node)

    def visit_Subscript(self, node):
        if isinstance(node.ctx, ast.Store | ast.Del) and self.is_inside(node.value):
            self.flag(node)
        self.generic_visit(node)

    def visit_Call(self, node):
        match node:
            case ast.Call(
                func=ast.Name(id="setattr" | "delattr") | ast.Attribute(attr="__setattr__"),
                args=[owner, name, *_],
            ):
                if self.is_theirs(owner) or self.is_named(owner, name):
                    self.flag(node)
            case ast.Call(
                func=ast.Name(id="patch" | "Patch") | ast.Attribute(attr="patch" | "Patch")
            ):
                self.flag(node)
            case ast.Call(func=ast.Attribute(attr=method, value=value)):
                if method in _MUTATING and self.is_inside(value):
                    self.flag(node.func)
        self.generic_visit(node)

    def changes(self, node, names=None):
        """Whether an assignment to an attribute changes an object of theirs."""
        if self.is_theirs(node.value):
            return True
        if _is_own(node.value):
            return False
        return node.attr.startswith("_") or node.attr in (names or attributes())

    def is_inside(self, node):
        """Whether a container belongs to an object of theirs."""
        match node:
            case ast.Call(func=ast.Name(id="vars"), args=[owner]):
                return not _is_own(owner)
            case ast.Attribute(attr="__dict__", value=owner):
                return not _is_own(owner)
            case ast.Attribute():
                return self.changes(node, containers())
        return False

    def is_named(self, owner, name):
        return isinstance(name, ast.Constant) and self.changes(
            ast.Attribute(owner, str(name.value), ast.Store())
        )


def _is_own(node):
    """Whether an expression is bulksafe's own object, by its name, or an instance of a model."""
    return ast.unparse(node).rpartition(".")[2] in {"self", "cls", "instance", "_state"}


# Live.


def find_live():
    """The attributes of loaded modules of theirs, and of their classes, that bulksafe has made.

    Returns:
        their owners and names.
    """
    modules = [module for name, module in sys.modules.items() if is_foreign(name)]
    owners = {id(module): module for module in modules}
    for module in modules:
        for value in vars(module).values():
            if _is(value, type) and is_foreign(value.__module__):
                owners[id(value)] = value
    return {(owner, name) for owner in owners.values() for name in made_by_bulksafe(owner)}


def made_by_bulksafe(owner):
    """The names of the attributes of an object's own that come from bulksafe."""
    return {name for name, value in list(vars(owner).items()) if _is_made_by_bulksafe(value)}


def _is_made_by_bulksafe(value):
    while value is not None:
        if any(home.partition(".")[0] == "bulksafe" for home in _homes(value)):
            return True
        value = _inner(value)
    return False


def _homes(value):
    """The modules that a value comes from. ``functools.wraps`` copies ``__module__``."""
    if _is(value, types.FunctionType):
        return [value.__globals__.get("__name__", "")]
    if _is(value, types.ModuleType):
        return [value.__name__]
    owner = value if _is(value, type) else type(value)
    return [str(one.__module__) for one in owner.__mro__]


def _inner(value):
    """What a descriptor, a partial or a wrapper of another package has inside."""
    if _is(value, property):
        return value.fget
    if _is(value, cached_property):
        return value.real_func
    if _is(value, functools.cached_property, functools.partial):
        return value.func
    if _is(value, staticmethod, classmethod, types.MethodType):
        return value.__func__
    return inspect.getattr_static(value, "__wrapped__", None)


def _is(value, *kinds):
    """``isinstance()`` would ask a lazy object of Django's for its class, which sets it up."""
    return issubclass(type(value), kinds)
