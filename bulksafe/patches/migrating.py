"""What migrations and ``makemigrations`` do beyond Django and pgtrigger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core import management
from django.core.management.commands import makemigrations, migrate
from django.db.backends.postgresql.schema import DatabaseSchemaEditor
from django.db.migrations import autodetector
from django.db.migrations.state import ProjectState, StateApps
from django.utils.functional import cached_property
from pgtrigger import runtime

from bulksafe import attached, inspection
from bulksafe.compiler import Trigger
from bulksafe.outbox import schema
from bulksafe.patches.patching import APPLIED, patch
from bulksafe.planning import autodetection, dropping

if TYPE_CHECKING:
    from collections.abc import Sequence


def apply() -> None:
    """Apply these patches; a second call changes nothing."""
    patch(DatabaseSchemaEditor, "_alter_field", _alter_field)
    patch(DatabaseSchemaEditor, "create_model", _create_model)
    patch(DatabaseSchemaEditor, "delete_model", _delete_model)
    _extend_state()
    _extend_autodetector()
    patch(management, "load_command_class", _load_command_class)
    for name in ("_inject_schema", "_inject_pgtrigger_ignore"):
        patch(runtime, name, _inject)
    patch(makemigrations.Command, "add_arguments", _add_arguments)
    patch(makemigrations.Command, "handle", _make_migrations)


# Tables.


def _alter_field(
    original: Any, self: Any, model: Any, old: Any, new: Any, *args: Any, **kwargs: Any
) -> Any:
    """PostgreSQL alters no column that a trigger's WHEN clause uses: put the triggers aside.

    Events that wait know a column by its name, and are told its new one.
    """
    with inspection.triggers_put_aside(self, model, old, new):
        result = original(self, model, old, new, *args, **kwargs)
    if old.column != new.column:
        statement = schema.rename_in_images(model, str(old.column), str(new.column))
        self.execute(statement, params=None)
    return result


def _create_model(original: Any, self: Any, model: Any) -> Any:
    """A table that a migration brings back has the triggers that other apps had attached to it."""
    result = original(self, model)
    for trigger in attached.on_model(model):
        self.execute(trigger.compile(model).install_sql, params=None)
    return result


def _delete_model(original: Any, self: Any, model: Any) -> Any:
    """A dropped table takes its triggers along, but not their functions."""
    for trigger in (*(getattr(model._meta, "triggers", None) or ()), *attached.on_model(model)):
        if isinstance(trigger, Trigger):
            self.execute(trigger.compile(model).uninstall_sql, params=None)
    # Such as those of an app that was removed from INSTALLED_APPS.
    for statement in () if self.collect_sql else inspection.removing_unknown(self, model):
        self.execute(statement, params=None)
    return original(self, model)


# What is attached follows the models of a migration state.


def _extend_state() -> None:
    """The models of a state find what is attached to them: schema editors are given no state.

    ``ProjectState.apps`` is a cached property that no public API can add to.
    """
    cached = ProjectState.__dict__["apps"]
    if getattr(cached.func, APPLIED, False):
        return

    def apps(state: ProjectState) -> StateApps:
        rendered: StateApps = cached.func(state)
        attached.link(state, rendered)
        return rendered

    setattr(apps, APPLIED, True)
    replacement = cached_property(apps)
    replacement.__set_name__(ProjectState, "apps")
    ProjectState.apps = replacement  # type: ignore[method-assign, assignment]
    patch(ProjectState, "clone", _clone_state)
    patch(ProjectState, "rename_model", _rename_model)
    patch(ProjectState, "remove_model", _remove_model)
    patch(ProjectState, "rename_field", _rename_field)
    patch(ProjectState, "remove_field", _remove_field)


def _clone_state(original: Any, self: ProjectState) -> Any:
    copied = original(self)
    attached.carry(self, copied)
    return copied


def _rename_model(original: Any, self: Any, app_label: str, old_name: str, new_name: str) -> None:
    """Automatic through tables are named after their model."""
    model = self.models[app_label, old_name.lower()]
    pairs = [((app_label, old_name.lower()), (app_label, new_name.lower()))]
    pairs += [
        (attached.through_key(model, name), attached.through_key(model, name, new_name))
        for name in attached.automatic_links(model)
    ]
    # Django removes the model of the old name in the end, with what is attached to it.
    attachments = attached.of(self)
    attachments.rename(pairs)
    original(self, app_label, old_name, new_name)
    attachments.rename(pairs)
    autodetection.repoint_proxies(self, *pairs[0])


def _remove_model(original: Any, self: Any, app_label: str, model_name: str) -> None:
    model = self.models[app_label, model_name]
    links = [attached.through_key(model, name) for name in attached.automatic_links(model)]
    original(self, app_label, model_name)
    attached.of(self).drop([(app_label, model_name), *links])


def _rename_field(  # noqa: PLR0917  (Django's own signature)
    original: Any, self: Any, app_label: str, model_name: str, old_name: str, new_name: str
) -> None:
    model = self.models[app_label, model_name]
    if old_name in attached.automatic_links(model):
        old, new = (attached.through_key(model, name) for name in (old_name, new_name))
        attached.of(self).rename([(old, new)])
    original(self, app_label, model_name, old_name, new_name)


def _remove_field(original: Any, self: Any, app_label: str, model_name: str, name: str) -> None:
    model = self.models[app_label, model_name]
    if name in attached.automatic_links(model):
        attached.of(self).drop([attached.through_key(model, name)])
    original(self, app_label, model_name, name)


def _extend_autodetector() -> None:
    """Put our mixin before the autodetector that pgtrigger has put before Django's."""
    detector: Any = makemigrations.Command.autodetector
    if issubclass(detector, autodetection.InvariantsMixin):
        return
    extended: Any = type("MigrationAutodetector", (autodetection.InvariantsMixin, detector), {})
    for module in (makemigrations, migrate):
        # pgtrigger looks at the modules, Django at the commands.
        module.MigrationAutodetector = extended  # type: ignore[attr-defined]
        module.Command.autodetector = extended


def _load_command_class(original: Any, app_name: str, name: str) -> Any:
    """Commands of other packages have Django's autodetector, as ``migrate`` of django-tenants has.

    Django's check ``commands.E001`` demands the same for ``migrate`` and ``makemigrations``.
    """
    command = original(app_name, name)
    kind = type(command)
    if name in {"makemigrations", "migrate"} and (
        getattr(kind, "autodetector", None) is autodetector.MigrationAutodetector
    ):
        kind.autodetector = makemigrations.Command.autodetector
    return command


def _add_arguments(original: Any, self: Any, parser: Any) -> None:
    original(self, parser)
    parser.add_argument(
        dropping.OPTION,
        action="append",
        default=[],
        metavar="MODEL",
        help="Drop the capture of this model, whose critical receivers were removed "
        "(bulksafe). May be repeated.",
    )


def _make_migrations(
    original: Any, self: Any, *app_labels: Any, drop_capture: Sequence[str] = (), **options: Any
) -> Any:
    """The autodetector has to ask about captures, and does not know the command that runs it."""
    with dropping.requested(self, drop_capture):
        return original(self, *app_labels, **options)


# Settings that pgtrigger sends with a statement.


def _inject(original: Any, execute: Any, sql: Any, params: Any, *others: Any) -> Any:
    """pgtrigger puts a parameter before a statement; one without parameters may have a “%”.

    The triggers of captures do, so that ``pgtrigger install --schema`` would fail.
    """

    def run(text: Any, given: Any, *rest: Any) -> Any:
        if params is None and given is not None:
            setting, _, statement = text.partition("; ")
            text = f"{setting}; {statement.replace('%', '%%')}"
        return execute(text, given, *rest)

    return original(run, sql, params, *others)
