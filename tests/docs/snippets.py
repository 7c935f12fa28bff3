"""Run a block of Python in the process of ``manage.py shell``, where the shop is installed."""

import ast
import doctest
import sys

from django.apps import apps
from django.core.checks import ERROR

from bulksafe import checks, conf, planning
from bulksafe.declarations import Invariant

#: What a page's snippets use without importing it each time.
NAMES = """
import datetime
from decimal import Decimal

import bulksafe
import pgtrigger
from bulksafe import Check, Compute, Immutable, Transition, testing
from django.core.exceptions import ValidationError
from django.db import connection, models, transaction
from django.db.models import Count, F, Q, Sum
from django.db.models.functions import NullIf
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save
from django.dispatch import Signal, receiver
from django.contrib.auth.models import User
from shop.models import *
"""

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def run_python(text, where):
    """Execute a snippet, and look for mistakes in what it declares."""
    known = _names()
    module = ast.parse(text, filename=where)
    for node in module.body:
        if isinstance(node, ast.Expr):
            _check_invariant(eval(_compiled(ast.Expression(node.value), where, "eval"), known))
        else:
            exec(_compiled(ast.Module([node], []), where, "exec"), known)
    found = [message for message in checks.check_receivers(None) if message.level >= ERROR]
    found += conf.problems(known.get("BULKSAFE", {}))
    if found:
        sys.exit(f"{where}: {found}")


def run_session(text, where):
    """Execute an interactive session, and compare what it prints."""
    test = doctest.DocTestParser().get_doctest(text, _names(), where, where, 0)
    if doctest.DocTestRunner(optionflags=OPTIONS).run(test).failed:
        sys.exit(1)


def _compiled(node, where, mode):
    return compile(ast.fix_missing_locations(node), where, mode)


def _names():
    # Receivers must be declared in an app: their migration is written there.
    known = {"__name__": "shop.page"}
    exec(NAMES, known)
    return known


def _check_invariant(value):
    if isinstance(value, Invariant):
        model = apps.get_model("shop", "Order")
        found = [p for p in planning.problems_of(value, model) if p.id.startswith("E")]
        if found:
            sys.exit(f"{value!r}: {found}")
