"""Django's own ways to write, each of which knows something that its SQL does not say.

Each function stands around one of Django's methods: ``inner`` is the method, bound. Models without
critical receivers in the transaction go straight through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from django.db import connections, models, router
from django.db.models.constants import OnConflict
from django.db.models.deletion import Collector
from django.db.models.signals import m2m_changed, post_delete, pre_delete, pre_save

from bulksafe.caching import per_model
from bulksafe.declarations import receivers
from bulksafe.declarations.lineage import lineage
from bulksafe.declarations.order import in_order, meant_by
from bulksafe.outbox.events import DELETED, UPDATED
from bulksafe.writer import connecting, parents, telling, unstored
from bulksafe.writer.changes import row_of_instance
from bulksafe.writer.early import assigned_since, early_arguments
from bulksafe.writer.observing import Observer
from bulksafe.writer.scopes import Deleting, InHand, Linking, Saving, Scope
from bulksafe.writer.vocabulary import has_early, vocabulary
from bulksafe.writer.watch import Watch, watching

if TYPE_CHECKING:
    from bulksafe.declarations import Receiver

Model = models.Model


def _concrete(model: type[Model]) -> type[Model]:
    found: Any = model._meta.concrete_model
    return found  # type: ignore[no-any-return]


@per_model(receivers.changes)
def is_concerned(model: type[Model]) -> bool:
    """Whether receivers in the transaction are called for what lies in the model's tables."""
    return bool(_concerned(_concrete(model)))


def _watch(model: type[Model], using: str) -> Watch | None:
    """The watch of the database, if there are such receivers."""
    return watching(using) if is_concerned(model) else None


def _concerned(model: type[Model]) -> list[type[Model]]:
    """The models with receivers whose rows lie in the tables of a model, or parts of them."""
    tables = {table._meta.db_table for table in lineage(model)}
    return [
        known
        for known in vocabulary().models
        if any(table._meta.db_table in tables for table in lineage(known))
    ]


def save_base(
    inner: Callable[..., None], instance: Model, *args: Any, using: str | None = None, **named: Any
) -> None:
    """``Model.save()``: Django sends the signals, with its own arguments and the instance."""
    using = using or router.db_for_write(type(instance), instance=instance)
    watch = _watch(type(instance), using)
    if watch is None:
        inner(*args, using=using, **named)
        return
    fields = named.get("update_fields")
    model = _concrete(type(instance))
    with watch.within(
        Saving(
            given_fields=None if fields is None else frozenset(fields),
            model=model,
            instance=instance,
            is_spared=_is_spared(model),
        )
    ):
        inner(*args, using=using, **named)


def save_table(inner: Callable[..., Any], instance: Model, using: str) -> Any:
    """The SQL of a ``save()``, between the signals."""
    watch = connections[using].__dict__.get("_bulksafe_watch")
    scope = watch.scopes[-1] if watch is not None and watch.scopes else None
    if not isinstance(scope, Saving) or scope.instance is not instance:
        return inner()
    with scope.storing():
        return inner()


def _is_spared(model: type[Model]) -> bool:
    """Whether the database need not buffer what Django stores of instances in hand.

    It need not if all receivers are called by Django, or with the objects, and can see nothing
    but these. Inside a receiver it has to: whether anything has changed decides who is called.
    """
    return not telling.depth() and _all_see_instances_only(model)


@per_model(receivers.changes)
def _all_see_instances_only(model: type[Model]) -> bool:
    listed = receivers.of_model(model, receivers.is_inline)
    return len(lineage(model)) == 1 and all(map(_sees_instances_only, listed))


def _sees_instances_only(receiver: Receiver) -> bool:
    if receiver.signal_name in {"pre_delete", "post_delete"}:
        return True
    return (
        receiver.signal is not m2m_changed
        and receiver.when is None
        and not receiver.batch
        and not receiver.extras
    )


def bulk_create(
    inner: Callable[..., Any], queryset: Any, objs: Any, *args: Any, **named: Any
) -> Any:
    """``pre_save`` on the objects, then the INSERT, then ``post_save`` on the same objects."""
    using = _for_write(queryset)
    watch = _watch(queryset.model, using)
    if watch is None:
        return inner(objs, *args, **named)
    model = _concrete(queryset.model)
    listed = list(objs)
    if not listed:
        # Nothing to write, but Django checks the other arguments.
        return inner(listed, *args, **named)
    options = dict(zip(_OPTIONS, args, strict=False)) | named
    fields = options.get("update_fields")
    scope = InHand(
        model=model,
        given_fields=_field_names(queryset.model, fields) if fields else None,
    )
    is_link = bool(connecting.live(m2m_changed, model))
    asks = options.get("update_conflicts") or (
        options.get("ignore_conflicts") and has_early([model])
    )
    if asks or is_link:
        watch.expect(queryset)
        # Which rows there are already, the database says.
        keys = [instance.pk for instance in listed]

        def insert() -> Any:
            for instance, key in zip(listed, keys, strict=True):
                instance.pk = key
            return inner(listed, *args, **named)

        rehearsed = Scope(
            given_fields=scope.given_fields,
            on_conflict=_on_conflict(model, options),
        )
        created = watch.perform(insert, rehearsed, [model])
        for instance in listed:
            row = row_of_instance(instance)
            if row in rehearsed.moved:
                instance.pk = rehearsed.moved[row]
        return created
    # Rows that are there already are left out by ignore_conflicts: the database knows which.
    scope.is_spared = not options.get("ignore_conflicts") and _is_spared(model)
    write = _Write(watch, scope, listed, lambda chunk: inner(chunk, *args, **named))
    write.run(None)
    return listed


#: The arguments of ``bulk_create()`` after the objects.
_OPTIONS = ("batch_size", "ignore_conflicts", "update_conflicts", "update_fields", "unique_fields")


def _on_conflict(model: type[Model], options: dict[str, Any]) -> dict[str, Any]:
    """The options as ``QuerySet._insert`` takes them, which have been checked by then."""
    if options.get("ignore_conflicts"):
        return {"on_conflict": OnConflict.IGNORE}
    if not options.get("update_conflicts"):
        return {}
    meta: Any = model._meta
    fields, unique = (options.get(key) or () for key in ("update_fields", "unique_fields"))
    return {
        "on_conflict": OnConflict.UPDATE,
        "update_fields": [meta.get_field(name) for name in fields],
        "unique_fields": [meta.pk if name == "pk" else meta.get_field(name) for name in unique],
    }


def bulk_update(
    inner: Callable[..., int], queryset: Any, objs: Any, fields: Any, *args: Any, **named: Any
) -> int:
    """The same for ``bulk_update()``."""
    using = _for_write(queryset)
    watch = _watch(queryset.model, using)
    listed = tuple(objs)
    fields = list(fields)
    if watch is None or not listed or any(instance.pk is None for instance in listed):
        return inner(listed, fields, *args, **named)
    names = _field_names(queryset.model, fields)
    scope = InHand(model=_concrete(queryset.model), given_fields=names)
    write = _Write(watch, scope, listed, lambda chunk: inner(chunk, fields, *args, **named))
    return sum(count or 0 for count in write.run(names))


def set_order(
    instance: Model, ordered: type[Model], keys: Iterable[Any], using: str | None
) -> None:
    """``order_with_respect_to``: give the rows of these keys the order of the keys."""
    meta: Any = ordered._meta
    manager: Any = ordered._default_manager
    rows = manager.db_manager(using).filter(
        **meta.order_with_respect_to.get_forward_related_filter(instance)
    )
    listed = [meta.pk.to_python(getattr(key, "pk", key)) for key in keys]
    stored = rows.in_bulk(listed)
    for order, key in enumerate(listed):
        if key in stored:
            stored[key]._order = order
    # In the order of the keys, and each row once.
    rows.bulk_update([stored[key] for key in dict.fromkeys(listed) if key in stored], ["_order"])


def update(inner: Callable[..., int], queryset: Any, **values: Any) -> int:
    """``QuerySet.update()``: rehearsed, where receivers come before it."""
    using = _for_write(queryset)
    watch = _watch(queryset.model, using)
    model = _concrete(queryset.model)
    if watch is None:
        return inner(**values)
    if watch.scopes and watch.scopes[-1].covers(model, "UPDATE"):
        # Part of a bulk_update().
        return inner(**values)
    watch.expect(queryset)
    scope = Scope(
        given_fields=_field_names(queryset.model, values),
        child=model if model._meta.parents else None,
    )
    count: int = watch.perform(
        lambda: inner(**values), scope, _concerned(model), returning=(model, UPDATED)
    )
    return count


def delete(inner: Callable[[], Any], collector: Any) -> Any:
    """``delete()``: Django has the instances and sends the signals."""
    affected = {
        *collector.data,
        *(queryset.model for queryset in collector.fast_deletes),
        *(field.model for field, _ in collector.field_updates),
    }
    watches = [watch for model in affected if (watch := _watch(model, collector.using))]
    if not watches:
        return inner()
    watch = watches[0]
    scope = Deleting(
        given_origin=collector.origin,
        models=frozenset(_concrete(model) for model in collector.data),
        root=_root(collector),
        called_before=_deleted_by(watch),
    )
    if len(collector.fast_deletes) == 1 and not collector.data and not collector.field_updates:
        # One statement, and no instances.
        watch.expect(collector.fast_deletes[0])
        model = _concrete(collector.fast_deletes[0].model)
        return watch.perform(inner, scope, returning=(model, DELETED))
    for instances in collector.data.values():
        scope.take(instances)
    with watch.within(scope):
        deleted = _DeletionRowByRow(watch, scope, collector).run()
        total, counts = inner()
        return total + sum(deleted.values()), dict(Counter(counts) + deleted)


def can_fast_delete(inner: Callable[[], bool], collector: Any, objs: Any) -> bool:
    """Whether rows can be deleted without being fetched, as Django asks it.

    To Django, receivers stand against it. Those that come after the deletion get what the database
    has captured.
    """
    if inner():
        return True
    is_queryset = hasattr(objs, "_raw_delete") and hasattr(collector.origin, "_raw_delete")
    if not is_queryset or _watch(objs.model, collector.using) is None:
        return False
    if connecting.has_others(post_delete, objs.model) or pre_delete.has_listeners(objs.model):
        return False
    if any(receiver.row_by_row for receiver in connecting.live(post_delete, objs.model)):
        return False
    collector._has_signal_listeners = _nobody
    try:
        return inner()
    finally:
        del collector._has_signal_listeners


def _nobody(model: type[Model]) -> bool:
    return False


def _root(collector: Any) -> type[Model] | None:
    """The model whose rows ``delete()`` was called for."""
    origin = collector.origin
    model: Any = getattr(origin, "model", None) or type(origin)
    return _concrete(model) if hasattr(model, "_meta") else None


def _deleted_by(watch: Watch) -> dict[Any, set[Receiver]]:
    """What a deletion has called already, of which this one is a part."""
    if watch.scopes and isinstance(watch.scopes[-1], Deleting):
        return watch.scopes[-1].called_before
    return {}


def _is_part(watch: Watch, scope: Deleting) -> bool:
    """Whether a deletion in progress is one of the rows of another one."""
    return any(
        isinstance(other, Deleting) and other is not scope and other.is_split
        for other in watch.scopes
    )


class _DeletionRowByRow:
    """Calls the receivers that come before a deletion, and deletes row by row where they look.

    Django sends ``pre_delete`` for all rows before it deletes the first: a receiver that keeps the
    last admin would see all of them. It does so for what is deleted along with one row, too, and
    there it is left to it.
    """

    def __init__(self, watch: Watch, scope: Deleting, collector: Any) -> None:
        self.watch = watch
        self.scope = scope
        self.collector = collector
        self.deleted: Counter[str] = Counter()
        self._is_live = telling.Live(("pre_delete",))
        self._cached: parents.Cached = {}
        self._next = 0

    def run(self) -> Counter[str]:
        """The rows that were deleted one by one, by the label of their model."""
        root = self.scope.root
        if isinstance(self.collector.origin, Model) or _is_part(self.watch, self.scope):
            return self.deleted
        found = self.collector.data.get(root, ()) if root is not None else ()
        early = self._receivers(root) if root is not None and len(found) > 1 else []
        is_row_by_row = (
            root is not None
            and len(found) > 1
            and any(receiver.row_by_row for receiver in connecting.live(post_delete, root))
        )
        if not early and not is_row_by_row:
            return self.deleted
        assert root is not None  # noqa: S101
        # In the order in which Django goes on.
        self.instances = sorted(found, key=attrgetter("pk"))
        self._keys = [instance.pk for instance in self.instances]
        self._cached = parents.cached(self.instances)
        self._known = {
            (model, one.pk): one for model, listed in self.collector.data.items() for one in listed
        }
        self._gone: set[tuple[type[Model], Any]] = set()
        self.done = 0
        observer = Observer(root, self, self.watch.connection)
        for number, instance in enumerate(self.instances):
            self._next, observer.instance = number, instance
            if self._is_live.refresh():
                early = self._receivers(root)
            for receiver in early:
                named = {
                    "signal": receiver.signal,
                    "sender": root,
                    "instance": instance,
                    "using": self.watch.alias,
                    "origin": self.collector.origin,
                }
                self._depth = telling.depth()
                self.watch.sent_before(self.scope, receiver, named, instance, observer)
        if self.done or is_row_by_row:
            # All of them, then, so that each is gone before the next one's post_delete.
            self._next = len(self.instances)
            self._delete_up_to(self._next)
            self._leave_the_rest()
        else:
            self._forget_parents(self.instances)
        return self.deleted

    def _forget_parents(self, instances: Sequence[Model]) -> None:
        fast = (queryset.model for queryset in self.collector.fast_deletes)
        gone = {_concrete(model) for model in (*self.collector.data, *fast)}
        parents.forget(instances, self._cached, gone)

    def _receivers(self, model: type[Model]) -> list[Receiver]:
        listed = receivers.of_model(model, receivers.is_inline)
        return in_order([r for r in listed if self._is_live(r, model)])

    def flush(self) -> bool:
        before = self.done
        if before < self._next:
            with telling.outside(self._depth), self.watch.as_scope(self.scope):
                self._delete_up_to(self._next)
        return self.done > before

    def mark(self) -> Any:
        return self.done, set(self._gone), Counter(self.deleted)

    def return_to(self, mark: Any) -> None:
        done, gone, deleted = mark
        for key in self._gone - gone:
            # Django takes the key from an instance that it has deleted.
            self._known[key].pk = key[1]
        self.done, self._gone, self.deleted = done, set(gone), Counter(deleted)

    def _delete_up_to(self, end: int) -> None:
        root: Any = self.scope.root
        self._forget_parents(self.instances[self.done : end])
        ahead = {(root, key) for key in self._keys[end:]}
        while self.done < end:
            if (root, self._keys[self.done]) not in self._gone:
                part = Collector(using=self.collector.using, origin=self.collector.origin)
                part.collect([self.instances[self.done]])
                rows = {(model, one.pk) for model, listed in part.data.items() for one in listed}
                if rows & ahead:
                    # It takes rows along whose receivers come first.
                    return
                self._delete(part, rows)
            self.done += 1

    def _know(self, part: Any) -> None:
        """Receivers that come after a deletion find what earlier ones left on the instances."""
        for model, listed in part.data.items():
            part.data[model] = {self._known.get((model, one.pk), one) for one in listed}

    def _delete(self, part: Any, rows: set[tuple[type[Model], Any]]) -> None:
        """Delete one row with all that goes along with it."""
        self._know(part)
        self.scope.is_split = True
        try:
            _, counts = part.delete()
        finally:
            self.scope.is_split = False
        self.deleted += Counter(counts)
        self._gone |= rows

    def _leave_the_rest(self) -> None:
        """Let Django have what is left to be deleted, and nothing of what went along with a row."""
        root: Any = self.scope.root
        pairs = zip(self._keys, self.instances, strict=True)
        left = [instance for key, instance in pairs if (root, key) not in self._gone]
        rest = Collector(using=self.collector.using, origin=self.collector.origin)
        if left:
            rest.collect(left)
            self._know(rest)
        for name in ("data", "field_updates", "fast_deletes", "dependencies"):
            setattr(self.collector, name, getattr(rest, name))


def link(inner: Callable[..., Any], manager: Any, *args: Any, **named: Any) -> Any:
    """A many-to-many manager: Django sends ``m2m_changed``, where it does."""
    # Since Django 6.1 the database is an argument.
    using = named.get("using") or router.db_for_write(manager.through, instance=manager.instance)
    watch = _watch(manager.through, using)
    if watch is None:
        return inner(*args, **named)
    with watch.within(Linking(through=_concrete(manager.through))):
        return inner(*args, **named)


def _for_write(queryset: Any) -> str:
    queryset._for_write = True
    return str(queryset.db)


def _field_names(model: type[Model], fields: Any) -> frozenset[str]:
    """The names of fields that are given as names or as fields; unknown ones as they are."""
    known = {name: one.name for one in model._meta.fields for name in (one.name, one.attname)}
    known["pk"] = model._meta.pk.name
    names = [field if isinstance(field, str) else field.name for field in fields]
    return frozenset(known.get(name, name) for name in names)


def _before_and_from_batches(
    ordered: Sequence[Receiver],
) -> tuple[list[Receiver], list[Receiver]]:
    """The receivers that come row by row, and those that are, or come after, one for many rows."""
    first: list[Receiver] = []
    rest: list[Receiver] = []
    for receiver in ordered:
        before = {other for ref in receiver.after for other in meant_by(ref, ordered)}
        (rest if receiver.batch or before.intersection(rest) else first).append(receiver)
    return first, rest


class _Write:
    """A write of objects in hand, in bulk as far as their receivers allow.

    Args:
        store: writes some of the objects.
    """

    def __init__(
        self,
        watch: Watch,
        scope: InHand,
        instances: Sequence[Model],
        store: Callable[[Sequence[Model]], Any],
    ) -> None:
        self.watch = watch
        self.scope = scope
        self.instances = instances
        self._store = store
        #: What the caller has given: the key of each object, and whether it is a new one.
        self._given = [
            (instance, (instance.pk, instance._state.adding, instance._state.db))
            for instance in instances
        ]
        #: How many of the objects have been stored.
        self.done = 0
        self.results: list[Any] = []
        self._is_live = telling.Live(("pre_save", "post_save"))
        #: The related objects that the caller has given; None where no receiver comes first.
        self._cached: parents.Cached | None = None
        #: Whether receivers were connected or disconnected on the way.
        self._has_gone = False

    def run(self, update_fields: frozenset[str] | None) -> list[Any]:
        """Store all of the objects.

        Returns:
            what storing them has returned.
        """
        model: Any = self.scope.model
        with self.watch.within(self.scope):
            early, self.late = self._receivers(model)
            late = self.late
            self._update_fields = update_fields
            self._cached = parents.cached(self.instances) if early else None
            singles, self._rest = _before_and_from_batches(early)
            if singles or any(receiver.row_by_row for receiver in late):
                self._one_by_one(singles, late, update_fields)
            self.store_up_to(len(self.instances))
        return self.results

    def _receivers(self, model: type[Model]) -> tuple[list[Receiver], list[Receiver]]:
        listed = receivers.of_model(model, receivers.is_inline)
        found = [receiver for receiver in listed if self._is_live(receiver, model)]
        early = [receiver for receiver in found if receiver.signal is pre_save]
        return in_order(early), [receiver for receiver in found if receiver not in early]

    def _one_by_one(
        self,
        early: Sequence[Receiver],
        late: Sequence[Receiver],
        update_fields: frozenset[str] | None,
    ) -> None:
        model: Any = self.scope.model
        extras = {
            receiver: early_arguments(receiver, self.instances, self.watch.alias)
            for receiver in early
        }
        is_row_by_row = any(receiver.row_by_row for receiver in (*early, *late))
        observer = Observer(model, self, self.watch.connection)
        for number, instance in enumerate(self.instances):
            observer.instance = instance
            self._next = number
            for receiver in self._connected(early):
                extra = extras[receiver].get(id(instance))
                self._before(receiver, instance, update_fields, extra, observer)
            if is_row_by_row:
                self.store_up_to(number + 1)

    def _connected(self, listed: Sequence[Receiver]) -> Sequence[Receiver]:
        """Those that are still connected, asked for each row."""
        if not self._is_live.refresh() and not self._has_gone:
            return listed
        self._has_gone = True
        model: Any = self.scope.model
        return [receiver for receiver in listed if self._is_live(receiver, model)]

    def flush(self) -> bool:
        """Store the objects before the one whose receivers are running."""
        if self.done >= self._next:
            return False
        with telling.outside(self._depth), self.watch.as_scope(self.scope):
            self.store_up_to(self._next)
        return True

    def mark(self) -> Any:
        return self.done, len(self.results)

    def return_to(self, mark: Any) -> None:
        before = self.done
        self.done = mark[0]
        del self.results[mark[1] :]
        for instance, given in self._given[self.done : before]:
            # What it got when it was stored.
            instance.pk, instance._state.adding, instance._state.db = given

    def _before(
        self,
        receiver: Receiver,
        instance: Model,
        update_fields: frozenset[str] | None,
        extra: dict[str, Any] | None,
        observer: Observer | None,
    ) -> None:
        self.scope.has_called(receiver, instance)
        row = row_of_instance(instance)
        if extra is None or not telling.is_own_business(receiver):
            return
        named = {
            **telling.bulk_call(receiver, self.scope.model, self.watch.alias, update_fields),
            **extra,
            "instance": instance,
        }
        self._depth = telling.depth()
        unnamed = self._unnamed(instance, update_fields)
        self.watch.call_with(receiver, named, row, observer=observer)
        if assigned := assigned_since(instance, unnamed):
            unstored.warn(type(instance), [receiver], assigned)

    @staticmethod
    def _unnamed(instance: Model, update_fields: frozenset[str] | None) -> dict[str, Any]:
        """The values of the fields that the write does not store."""
        if update_fields is None:
            return {}
        values = instance.__dict__
        return {
            field.attname: values[field.attname]
            for field in instance._meta.concrete_fields
            if field.name not in update_fields and field.attname in values
        }

    def _from_batches(self, chunk: Sequence[Model]) -> None:
        """Call what is called for many rows at once, and what comes after that."""
        for receiver in self._rest:
            if receiver.batch:
                self._all_at_once(receiver, chunk)
                continue
            extras = early_arguments(receiver, chunk, self.watch.alias)
            for instance in chunk:
                if self._connected([receiver]):
                    extra = extras.get(id(instance))
                    self._before(receiver, instance, self._update_fields, extra, None)

    def _all_at_once(self, receiver: Receiver, chunk: Sequence[Model]) -> None:
        extras = early_arguments(receiver, chunk, self.watch.alias)
        chosen = [one for one in chunk if id(one) in extras]
        for instance in chunk:
            self.scope.has_called(receiver, instance)
        if not chosen or not telling.is_own_business(receiver):
            return
        fields = self._update_fields
        named = telling.bulk_call(receiver, self.scope.model, self.watch.alias, fields)
        wanted = {key: named[key] for key in ("signal", "sender", "using")}
        self.watch.call_with(
            receiver, {**wanted, "instances": chosen, "events": []}, row_of_instance(chosen[0])
        )

    def store_up_to(self, end: int) -> None:
        chunk = self.instances[self.done : end]
        self.done = max(self.done, end)
        if not chunk:
            return
        self._from_batches(chunk)
        self.watch.is_answered = False
        # Those that are there already may change along with rows of other models.
        self.scope.take(instance for instance in chunk if instance.pk is not None)
        with self.scope.storing():
            self.results.append(self._store(chunk))
        if self._cached is not None and len(chunk) > 1:
            parents.forget(chunk, self._cached)
        self.scope.take(chunk)
        if self.scope.is_spared:
            self.watch.sync()
            if self.watch.is_answered:
                self._after(chunk)
        self.watch.settle(self.scope)

    def _after(self, chunk: Sequence[Model]) -> None:
        """Call the receivers for rows of which the database says nothing, as it was asked to."""
        self.watch.gather(self.scope)
        told = {change.row for change in self.scope.pending if not change.deleted}
        model, using = self.scope.model, self.watch.alias
        late = in_order(self.late)
        common = {
            receiver: {**telling.bulk_call(receiver, model, using, None), "created": True}
            for receiver in late
        }
        for instance in chunk:
            row = row_of_instance(instance)
            if row in told:
                continue
            for receiver in self._connected(late):
                if telling.is_own_business(receiver):
                    named = {**common[receiver], "instance": instance}
                    self.watch.call_with(receiver, named, row)
