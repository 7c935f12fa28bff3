"""Models that a test declares for itself, registered as ``django.setup()`` would."""

from contextlib import contextmanager

from django.apps import apps as global_apps
from django.db import connections, models
from django.test.utils import isolate_apps
from pgtrigger import registry

from bulksafe import checks
from bulksafe.declarations import Invariant
from bulksafe.declarations import registry as declarations


@contextmanager
def isolated():
    """An app registry of its own: models declared in the block are known nowhere else."""
    with isolate_apps("tests.unit") as apps:
        yield apps


def declare(*triggers, class_name="Order", bases=(models.Model,), meta=None, **fields):
    """A model class with ``triggers`` in its Meta, in the isolated registry that is active."""
    options = {"app_label": "unit", "triggers": list(triggers), **(meta or {})}
    attributes = {"__module__": __name__, "Meta": type("Meta", (), options), **fields}
    return type(class_name, bases, attributes)


@contextmanager
def registered(*declared):
    """What the models' Meta.triggers hold is registered for the block, and nothing else."""
    kept = [
        Invariant.rejected,
        declarations.refused_targets,
        declarations.refused_apps,
        declarations.misplaced,
    ]
    before = [list(item) for item in kept]
    triggers = dict(registry._registry.data)
    apps = declarations.apps
    for item in kept:
        item.clear()
    registry._registry.data.clear()
    declarations.apps = _Only(declared)
    try:
        declarations.register_meta_triggers()
        yield
    finally:
        declarations.apps = apps
        registry._registry.data.clear()
        registry._registry.data.update(triggers)
        for item, values in zip(kept, before, strict=True):
            item[:] = values


class _Only:
    """The app registry, as if it had only the given models."""

    def __init__(self, only):
        self.only = only

    def get_models(self):
        return self.only

    def __getattr__(self, name):
        return getattr(global_apps, name)


def findings(*declared):
    """The messages of the system checks about the models, and the hints of “bulksafe ls”."""
    with registered(*declared):
        return [*checks.check_declarations(None), *checks.hints(declarations.declared())]


def ids(messages):
    return [message.id.removeprefix("bulksafe.") for message in messages]


@contextmanager
def tables(*declared, using="default"):
    """The models' tables with their triggers, in the test's transaction."""
    with registered(*declared):
        with connections[using].schema_editor() as editor:
            for model in declared:
                if not model._meta.proxy:
                    editor.create_model(model)
                else:
                    for trigger in model._meta.triggers:
                        editor.execute(trigger.compile(model).install_sql, params=None)
        yield
