"""Every form that ``@receiver`` takes: ``weak``, ``dispatch_uid``, ``async def``, senders."""

import asyncio
import signal
import threading

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.db.models.signals import m2m_changed, post_delete, post_save, pre_delete, pre_save
from django.dispatch import receiver

import bulksafe
from bulksafe import testing
from bulksafe.declarations import receivers
from bulksafe.dispatch.calling import call
from bulksafe.patches.signals import connect_critical
from tests.acceptance.wire import traced
from tests.apps.columns.models import Nullable, Wide
from tests.apps.invoices.models import Invoice, InvoiceProxy, Voucher
from tests.integration import inline

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def only_these_receivers(db):
    with inline.only_these():
        receivers.listeners.append(connect)
        yield


def connect(receiver):
    """What bulksafe.apps does with a receiver that is declared later."""
    connect_critical(receiver)
    inline.capture(*receiver.models())


def names():
    return [receiver.name for receiver in receivers.receivers]


def write(model, n=1):
    """The writes of a row's life, one by one and in bulk."""
    model.objects.bulk_create([model(n=n)])
    model.objects.update(n=n + 1)
    row = model.objects.get()
    row.save()
    row.delete()


def declare(kind, sender, function, run="in_transaction", **options):
    return bulksafe.critical(kind, sender=sender, run=run, **options)(function)


# weak=


@pytest.mark.parametrize("weak", [True, False])
def test_weak_is_accepted_and_the_receiver_is_always_held(weak):
    seen = []
    declare(post_save, Nullable, lambda instance, **kwargs: seen.append(instance.n), weak=weak)
    Nullable.objects.bulk_create([Nullable(n=1)])
    Nullable.objects.create(n=2)
    assert seen == [1, 2]


# dispatch_uid=


@pytest.mark.parametrize("uid", ["audit", ("audit", 1), 7, post_save])
def test_a_uid_of_several_signals_and_senders_declared_one_by_one(uid):
    seen = []

    def note(sender, **kwargs):
        seen.append((sender, kwargs["signal"]))

    for sender in (Nullable, Wide):
        for kind in (post_save, post_delete):
            declare(kind, sender, note, dispatch_uid=uid)
    write(Nullable)
    write(Wide)

    each = [post_save] * 3 + [post_delete]
    assert seen == [(sender, kind) for sender in (Nullable, Wide) for kind in each]
    assert len(set(names())) == 4


def test_the_names_of_receivers_that_share_a_uid_do_not_depend_on_their_order():
    def named(*order):
        with receivers.isolated():
            for kind, sender in order:
                bulksafe.critical(kind, sender=sender, dispatch_uid="audit")(print)
            return {(one.signal_name, one.senders): one.name for one in receivers.receivers}

    first, second = (post_save, Nullable), (post_delete, Wide)
    assert named(first) == {("post_save", (Nullable,)): "audit"}
    assert (
        named(first, second)
        == named(second, first)
        == {
            ("post_save", (Nullable,)): "audit@columns.Nullable.post_save",
            ("post_delete", (Wide,)): "audit@columns.Wide.post_delete",
        }
    )


def test_a_shared_uid_stands_for_all_of_its_receivers_in_after_and_muted():
    seen = []
    declare(post_save, Nullable, lambda **kwargs: seen.append("late"), after=["audit"])
    declare(post_save, Nullable, lambda **kwargs: seen.append("audit"), dispatch_uid="audit")
    declare(post_save, Wide, lambda **kwargs: seen.append("audit"), dispatch_uid="audit")
    Nullable.objects.bulk_create([Nullable(n=1)])
    Nullable.objects.create(n=1)
    assert seen == ["audit", "late"] * 2
    with testing.muted("audit"):
        Nullable.objects.create(n=1)
        Wide.objects.create(n=1)
    assert seen[4:] == ["late"]


def test_a_receiver_that_gets_a_longer_name_keeps_its_place():
    seen = []

    def audit(**kwargs):
        seen.append("audit")

    declare(post_save, Nullable, audit, dispatch_uid="audit")
    declare(post_save, Nullable, lambda **kwargs: seen.append("other"), dispatch_uid="other")
    declare(post_delete, Nullable, audit, dispatch_uid="audit")
    Nullable.objects.create(n=1)
    Nullable.objects.bulk_create([Nullable(n=2)])
    assert seen == ["audit", "other"] * 2


@pytest.mark.parametrize("uid", ["audit", ("audit", 1), frozenset({"audit", 1})])
def test_disconnect_finds_a_receiver_by_its_uid(uid):
    seen = []
    for sender in (Nullable, Wide):
        declare(
            [post_save, post_delete],
            sender,
            lambda sender, **kwargs: seen.append(sender),
            dispatch_uid=uid,
        )
    assert post_save.disconnect(dispatch_uid=uid, sender=Nullable)
    assert not post_save.disconnect(dispatch_uid=uid, sender=Nullable)
    Nullable.objects.create(n=1)
    Nullable.objects.bulk_create([Nullable(n=1)])
    assert seen == []
    Wide.objects.bulk_create([Wide(n=1)])
    assert seen == [Wide]


@pytest.mark.parametrize("uid", ["", 0, ()])
def test_an_empty_uid_is_none_as_in_django(uid):
    declare(post_save, Nullable, print, dispatch_uid=uid)
    assert names() == ["builtins.print@columns.Nullable.post_save"]
    assert post_save.disconnect(print, sender=Nullable)


def test_each_access_to_a_bound_method_is_the_same_receiver():
    class Audit:
        def __init__(self):
            self.seen = []

        def note(self, instance, **kwargs):
            self.seen.append(instance.n)

    audit, other = Audit(), Audit()
    declare(post_save, Nullable, audit.note)
    declare(post_save, Nullable, other.note, after=[audit.note], dispatch_uid="other")
    Nullable.objects.bulk_create([Nullable(n=1)])
    assert (audit.seen, other.seen) == ([1], [1])
    with testing.muted(audit.note):
        Nullable.objects.create(n=2)
    assert (audit.seen, other.seen) == ([1], [1, 2])
    assert post_save.disconnect(audit.note, sender=Nullable)
    post_save.connect(audit.note, sender=Nullable)
    Nullable.objects.bulk_create([Nullable(n=3)])
    assert audit.seen == [1, 3]


# A model and its proxy.


def stored(model=Invoice):
    model.objects.bulk_create([model(amount=1)])
    row = model.objects.create(amount=2)
    row.save()
    model.objects.update(amount=3)
    return 1 + 1 + 1 + 2


@pytest.mark.parametrize("model", [Invoice, InvoiceProxy])
@pytest.mark.parametrize("run", ["in_transaction", "after_commit"])
@pytest.mark.parametrize(
    "declarations",
    [
        [{"sender": [Invoice, InvoiceProxy]}],
        [{"sender": Invoice}, {"sender": InvoiceProxy}],
        [{"sender": InvoiceProxy}, {"sender": "invoices.Invoice"}],
        [{"sender": Invoice, "dispatch_uid": "a"}, {"sender": InvoiceProxy, "dispatch_uid": "b"}],
        [{"sender": [Invoice, Nullable]}, {"sender": Invoice}],
    ],
    ids=["one list", "stacked", "proxy first", "two uids", "overlapping lists"],
)
def test_a_receiver_of_a_model_and_its_proxy_is_called_once(declarations, run, model):
    seen = []

    def note(instance, **kwargs):
        seen.append(instance.amount)

    for options in declarations:
        declare(post_save, function=note, run=run, **options)
    count = stored(model)
    if run == "after_commit":
        testing.deliver()
    assert len(seen) == count


@pytest.mark.parametrize("run", ["in_transaction", "after_commit"])
def test_two_uids_for_one_sender_are_two_calls_as_in_django(run):
    seen = []

    def note(instance, **kwargs):
        seen.append(instance.amount)

    for uid in ("a", "b"):
        declare(post_save, Invoice, note, run, dispatch_uid=uid)
    count = stored()
    testing.deliver()
    assert len(seen) == 2 * count


# All models of some apps.


@pytest.mark.parametrize("run", ["in_transaction", "after_commit"])
def test_models_of_an_app(run):
    seen = []

    def note(sender, **kwargs):
        seen.append(sender)

    declare(post_save, bulksafe.models_of("invoices"), note, run)
    declare(post_save, Invoice, note, run)
    declare(m2m_changed, bulksafe.models_of("auth"), note, run)
    Invoice.objects.bulk_create([Invoice(amount=1)])
    Voucher.objects.create(code="a")
    user = User.objects.create(username="ann")
    User.groups.through.objects.bulk_create(
        [User.groups.through(user=user, group=Group.objects.create(name="staff"))]
    )
    testing.deliver()
    assert [*dict.fromkeys(seen)] == [Invoice, Voucher, User.groups.through]
    assert seen.count(Invoice) == seen.count(Voucher) == 1


# Name it to get it.

WRITES = {
    "save()": lambda: Nullable.objects.create(n=1),
    "bulk_create()": lambda: Nullable.objects.bulk_create([Nullable(n=1)]),
    "update()": lambda: Nullable.objects.update(n=5),
    "raw SQL": lambda: execute("UPDATE columns_nullable SET n = 6"),
    "delete()": lambda: Nullable.objects.all().delete(),
}


def execute(text):
    with connection.cursor() as cursor:
        cursor.execute(text)


@pytest.mark.parametrize("run", ["in_transaction", "after_commit"])
@pytest.mark.parametrize("named", [(), ("old",), ("changed",), ("event_id",), ("context",)])
def test_kwargs_holds_django_s_arguments_only_and_a_parameter_what_it_names(named, run):
    plain, critical, names = {}, {}, []

    def keep(calls, kwargs):
        calls.setdefault(names[-1], []).append(set(kwargs))

    signals = [post_save, post_delete]
    if run == "in_transaction":
        signals = [pre_save, pre_delete, *signals]
    parameters = "".join(f"{one}, " for one in named)
    passed = "".join(f"{one}={one}, " for one in named)
    namespace = {"keep": keep, "critical": critical}
    exec(f"def note({parameters}**kwargs): keep(critical, dict({passed}**kwargs))", namespace)

    def note_plain(**kwargs):
        keep(plain, kwargs)

    for kind in signals:
        kind.connect(note_plain, sender=Nullable)
        declare(kind, Nullable, namespace["note"], run, dispatch_uid="note")
    try:
        for name, write_it in WRITES.items():
            names.append(name)
            write_it()
            testing.deliver()
    finally:
        for kind in signals:
            kind.disconnect(note_plain, sender=Nullable)

    assert list(critical) == list(WRITES)
    for name in ("save()", "delete()"):
        if run == "in_transaction":
            assert critical[name] == [one | set(named) for one in plain[name]]
    for name in WRITES:
        extra = {"old", "changed", "event_id", "context"}
        assert all(call & extra == set(named) for call in critical[name])


def test_update_fields_of_raw_sql_are_the_fields_that_changed():
    """Also where no receiver needs more than Django's arguments."""
    seen = []

    def note(instance, update_fields, **kwargs):
        seen.append((instance.n, update_fields))

    declare(post_save, Nullable, note)
    Nullable.objects.create(n=1)
    execute("UPDATE columns_nullable SET n = n + 1, t = t")
    Nullable.objects.update(n=3, t="x")
    assert seen == [(1, None), (2, {"n"}), (3, {"n", "t"})]


def test_before_a_save_only_old_and_changed_cost_a_query():
    row = Nullable.objects.create(n=1)

    def queries():
        # Django's log does not have bulksafe's queries.
        with traced(connection.connection) as lines:
            row.save()
        return len([line for line in lines if "FROM columns_nullable WHERE" in line])

    for parameter, count in (("event_id", 0), ("context", 0), ("old", 1), ("changed", 1)):
        with inline.only_these():
            receivers.listeners.append(connect)
            namespace = {}
            exec(f"def note({parameter}, **kwargs): pass", namespace)
            declare(pre_save, Nullable, namespace["note"], dispatch_uid="note")
            looked = queries()
        with inline.only_these():
            receivers.listeners.append(connect)
            declare(pre_save, Nullable, lambda **kwargs: None, dispatch_uid="note")
            assert looked - queries() == count, parameter


# async def.


async def later(sender, instance, **kwargs):
    await asyncio.sleep(0)
    await Wide.objects.acreate(n=instance.n)


class Later:
    async def __call__(self, sender, instance, **kwargs):
        await later(sender, instance)


def hidden(sender, instance, **kwargs):
    """Returns a coroutine, like a decorator that does not support ``async def``."""
    return later(sender, instance)


@pytest.mark.parametrize("run", ["in_transaction", "after_commit"])
@pytest.mark.parametrize("function", [later, Later(), hidden], ids=["function", "object", "hidden"])
def test_an_asynchronous_receiver_runs_to_its_end_on_the_writer_s_connection(function, run):
    declare(post_save, Nullable, function, run, dispatch_uid="later")
    with transaction.atomic():
        Nullable.objects.create(n=1)
        Nullable.objects.bulk_create([Nullable(n=2)])
        Nullable.objects.update(n=3)
        testing.deliver()
        assert sorted(Wide.objects.values_list("n", flat=True)) == [1, 2, 3, 3]
        transaction.set_rollback(True)
    assert not Wide.objects.exists()


def test_an_asynchronous_receiver_before_the_write_sees_the_old_row_and_changes_the_new():
    async def double(sender, instance, **kwargs):
        assert not await sender.objects.filter(n=instance.n).aexists()
        instance.n *= 2

    declare(pre_save, Nullable, double)
    Nullable.objects.create(n=1)
    Nullable.objects.bulk_create([Nullable(n=10)])
    Nullable.objects.filter(n=2).update(n=100)
    assert sorted(Nullable.objects.values_list("n", flat=True)) == [20, 200]


def test_an_asynchronous_receiver_s_error_refuses_the_write():
    async def refuse(sender, **kwargs):
        await asyncio.sleep(0)
        raise ValueError("no")

    declare(post_save, Nullable, refuse)
    with pytest.raises(ValueError, match="no"):
        Nullable.objects.bulk_create([Nullable(n=1)])
    assert not Nullable.objects.exists()
    with pytest.raises(ValueError, match="no"):
        Nullable.objects.create(n=1)


def order_of_calls(run):
    seen = []

    async def asynchronous(**kwargs):
        seen.append("async")

    declare(post_save, Nullable, asynchronous, run)
    declare(post_save, Nullable, lambda **kwargs: seen.append("sync"), run, dispatch_uid="sync")
    return seen


@pytest.mark.parametrize("run", ["in_transaction", "after_commit"])
def test_asynchronous_receivers_run_last_as_in_django(run):
    seen = order_of_calls(run)
    Nullable.objects.create(n=1)
    Nullable.objects.bulk_create([Nullable(n=2)])
    testing.deliver()
    assert seen == ["sync", "async"] * 2


def test_asynchronous_receivers_run_after_synchronous_ones_connected_later():
    seen = order_of_calls("in_transaction")

    @receiver(post_save, sender=Nullable)
    def plain(**kwargs):
        seen.append("plain")

    try:
        Nullable.objects.create(n=1)
    finally:
        post_save.disconnect(plain, sender=Nullable)
    assert seen == ["sync", "plain", "async"]


def test_an_asynchronous_receiver_that_is_connected_again_is_critical_again():
    seen = []

    async def note(instance, **kwargs):
        seen.append(instance.n)

    declare(post_save, Nullable, note)
    assert post_save.disconnect(note, sender=Nullable)
    post_save.connect(note, sender=Nullable)
    Nullable.objects.create(n=1)
    Nullable.objects.bulk_create([Nullable(n=2)])
    assert seen == [1, 2]


def test_its_own_writes_do_not_call_an_asynchronous_receiver():
    seen = []

    async def again(sender, instance, **kwargs):
        seen.append(instance.n)
        await sender.objects.filter(pk=instance.pk).aupdate(n=instance.n + 1)

    declare(post_save, Nullable, again)
    Nullable.objects.create(n=1)
    Nullable.objects.bulk_create([Nullable(n=5)])
    assert seen == [1, 5]
    assert sorted(Nullable.objects.values_list("n", flat=True)) == [2, 6]


def test_a_coroutine_ends_with_the_call_that_a_timeout_interrupts():
    """Its thread would go on while the listener rolls back and makes other calls."""
    begun, ended = threading.Event(), threading.Event()
    interrupts, steps = [], []

    def alarm(number, frame):
        interrupts.append(number)
        if len(interrupts) == 1:
            raise KeyboardInterrupt

    def interrupt():
        begun.wait()
        # A signal that comes just before the main thread blocks is handled with the next one.
        while not ended.wait(0.01):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    async def slow(**kwargs):
        try:
            begun.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            steps.append("cancelled")
            raise
        finally:
            ended.set()

    before = signal.signal(signal.SIGUSR1, alarm)
    thread = threading.Thread(target=interrupt)
    try:
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            call(slow, {})
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert steps == ["cancelled"]


def test_a_coroutine_that_a_running_loop_refuses_is_closed():
    """Otherwise Python warns, far from its cause, that it was never awaited."""

    async def main():
        with pytest.raises(RuntimeError, match="same thread as an async event loop"):
            call(later, {"sender": Nullable, "instance": None})

    asyncio.run(main())


def test_asynchronous_methods_of_the_orm_call_asynchronous_receivers():
    declare(post_save, Nullable, later)

    async def main():
        await Nullable.objects.acreate(n=1)
        await Nullable.objects.abulk_create([Nullable(n=2)])

    async_to_sync(main)()
    assert sorted(Wide.objects.values_list("n", flat=True)) == [1, 2]
    assert connection.in_atomic_block
