"""Rows that Django stores from instances, and rows that a statement returns."""

from __future__ import annotations

import re
from contextlib import nullcontext

import psycopg
import pytest
from django.db import IntegrityError, transaction
from django.db.models.expressions import RawSQL
from django.db.models.signals import post_delete, post_save, pre_save
from psycopg.client_cursor import ClientCursorMixin

from bulksafe.writer.conflicts import Conflicts
from tests.apps.practice.models import CriticalArticle as Article
from tests.apps.practice.models import CriticalShelf as Shelf
from tests.integration import inline_committed as inline
from tests.integration.bypass.writes import SHELVES, check_refusal, url
from tests.integration.inline_committed import (
    ARTICLES,
    execute,
    insert,
    raw,
    titles,
)

pytestmark = pytest.mark.django_db(transaction=True)


class _Marks:
    """Fixtures for statements that carry a mark."""

    @pytest.fixture(autouse=True)
    def known(self, monkeypatch):
        """As if the receivers had been called before: the first row teaches nothing any more."""
        monkeypatch.setattr(Conflicts, "has_unknown", False)

    @pytest.fixture
    def seen(self, clean):
        """The titles delivered to a receiver that reads nothing else."""
        return self.noting(post_save, "look")

    @staticmethod
    def noting(signal, uid):
        found = []

        def look(instance, **kwargs):
            found.append(instance.title)

        inline.critical(signal, Article, look, dispatch_uid=uid)
        return found

    @pytest.fixture
    def statements(self, monkeypatch):
        """What the driver has sent, without what travels in front of it."""
        found = []
        send = ClientCursorMixin._execute_send

        def note(cursor, query, *args, **kwargs):
            found.append(query.query.decode().rpartition(";\n")[2])
            return send(cursor, query, *args, **kwargs)

        monkeypatch.setattr(ClientCursorMixin, "_execute_send", note)
        return found

    @staticmethod
    def marked(statements):
        return [sql for sql in statements if sql.endswith(" */")]


class TestInHand(_Marks):
    """The mark that says so is good for Django's own statement only."""

    def test_it_is_behind_what_django_stores(self, seen, statements):
        article = Article.objects.create(title="one")
        article.title = "two"
        article.save()
        article.save(update_fields=["title"])
        Article.objects.bulk_create(
            [Article(title="three"), Article(pk=2_000_000_000, title="four")]
        )

        Article.objects.update(title="five")
        Article.objects.all().delete()

        assert seen == ["one", "two", "two", "three", "four", *(3 * ["five"])]
        found = [
            (sql.split()[0], re.search(r"bulksafe: (\w+ \w+) ", sql)[1])
            for sql in self.marked(statements)
        ]
        assert found == [
            ("INSERT", "in hand"),
            ("UPDATE", "in hand"),
            ("UPDATE", "in hand"),
            ("INSERT", "answer to"),
            ("INSERT", "answer to"),
            ("UPDATE", "return to"),
        ]
        end = f" {raw().info.backend_pid} {ARTICLES} */"
        assert all(sql.endswith(end) for sql in self.marked(statements))

    def test_the_database_keeps_nothing(self, seen):
        notices = []
        raw().add_notice_handler(lambda notice: notices.append(notice.sqlstate))
        article = Article.objects.create(title="one")
        article.save()
        assert notices == []
        Article.objects.bulk_create([Article(title="two")])
        assert notices == ["BS002"]
        Article.objects.update(title="three")
        assert notices == ["BS002", "BS002"]
        execute(f"UPDATE {ARTICLES} SET title = 'four'")
        assert notices == ["BS002", "BS002", "BS001"]

        assert len(seen) == 7

    @pytest.mark.parametrize("name", ["in_sql", "in_plpgsql"])
    @pytest.mark.parametrize("store", ["create", "save", "bulk_create"])
    def test_a_function_writes_in_an_expression(self, name, store, seen):
        """To the table that Django stores to."""
        title = RawSQL(f"COALESCE(bypass.{name}()::text, 'own')", [])
        own = Article.objects.create(title="there")
        seen.clear()
        match store:
            case "create":
                Article.objects.create(title=title)
            case "save":
                own.title = title
                own.save()
            case "bulk_create":
                Article.objects.bulk_create([Article(title=title)])

        assert len(seen) == 2
        assert "function" in seen

    def test_a_function_writes_in_a_default(self, seen):
        """Of a column that the model lacks."""
        execute(
            "CREATE FUNCTION bypass.note() RETURNS int LANGUAGE plpgsql AS $$ BEGIN "
            f"UPDATE {ARTICLES} SET version = 1 WHERE title = 'other'; RETURN 1; END $$"
        )
        Article.objects.create(title="other")
        execute(f"ALTER TABLE {ARTICLES} ADD COLUMN noted int")
        execute(f"ALTER TABLE {ARTICLES} ALTER COLUMN noted SET DEFAULT bypass.note()")
        seen.clear()
        try:
            Article.objects.create(title="own")
            Article.objects.bulk_create([Article(title="own")])
        finally:
            execute(f"ALTER TABLE {ARTICLES} DROP COLUMN noted")
            execute("DROP FUNCTION bypass.note")

        assert sorted(seen) == ["other", "other", "own", "own"]

    def test_it_is_behind_nothing_else(self, seen, statements):
        Article.objects.create(title="one")
        statements.clear()
        article = Article.objects.get()
        Article.objects.bulk_update([article], ["title"])
        Article.objects.bulk_create([article], ignore_conflicts=True)
        execute(insert())
        execute(f"UPDATE {ARTICLES} SET version = 1 WHERE title = 'raw'")
        Article.objects.all().delete()

        assert self.marked(statements) == []
        assert seen == ["one", "one", "raw", "raw"]

    def test_a_receiver_that_sees_more_needs_the_buffer(self, seen, statements):
        inline.critical(post_save, Article, dispatch_uid="sees more")
        Article.objects.create(title="one")

        assert self.marked(statements) == []

    def test_a_statement_from_a_log_is_refused(self, seen, statements, psql):
        Article.objects.create(title="one")
        (logged,) = self.marked(statements)
        assert psql(logged).returncode == 3
        with psycopg.connect(url(), autocommit=True) as other:
            with pytest.raises(psycopg.IntegrityError) as refusal:
                other.execute(logged)
            check_refusal(refusal.value, receiver="look")

        assert titles() == ["one"]

    def test_a_mark_for_a_different_table(self, seen):
        mark = f"/* bulksafe: in hand {raw().info.backend_pid} {SHELVES} */"
        with pytest.raises(psycopg.IntegrityError):
            raw().execute(f"{insert()} {mark}")

        assert titles() == []

    def test_a_rule_writes_to_another_table(self, seen):
        shelves = []

        def look(instance, **kwargs):
            shelves.append(instance.name)

        inline.critical(post_save, Shelf, look, dispatch_uid="shelves")
        execute(
            f"CREATE RULE also AS ON INSERT TO {ARTICLES} DO ALSO "
            f"INSERT INTO {SHELVES} (name, books, pages) VALUES ('rule', 0, 0)"
        )
        try:
            Article(title="one").save()
            Article.objects.bulk_create([Article(title="two")])
        finally:
            execute(f"DROP RULE also ON {ARTICLES}")

        assert shelves == ["rule", "rule"]
        assert seen == ["one", "two"]

    def test_a_trigger_writes_to_the_same_table(self, seen):
        Article.objects.create(title="other")
        execute(
            f"CREATE FUNCTION bypass.more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"UPDATE {ARTICLES} SET version = version + 1 WHERE title = 'other'; RETURN NULL; "
            f"END $$; CREATE TRIGGER more AFTER INSERT ON {ARTICLES} "
            "FOR EACH ROW EXECUTE FUNCTION bypass.more()"
        )
        seen.clear()
        try:
            Article(title="one").save()
            Article.objects.bulk_create([Article(title="two")])
        finally:
            execute(f"DROP TRIGGER more ON {ARTICLES}")
            execute("DROP FUNCTION bypass.more")

        assert sorted(seen) == ["one", "other", "other", "two"]

    @pytest.mark.parametrize("way", ["update", "one row", "SQL", "save", "bulk_create"])
    @pytest.mark.parametrize("store", ["create", "save", "bulk_create"])
    def test_a_field_writes_while_it_is_stored(self, way, store, seen, monkeypatch):
        """As fields of positions do, which make room among the other rows."""
        other = Article.objects.create(title="other")
        own = Article.objects.create(title="own")
        seen.clear()
        field, busy = Article._meta.get_field("position"), []

        def write():
            match way:
                case "update":
                    Article.objects.filter(title="other").update(version=1)
                case "one row":
                    Article.objects.filter(pk=other.pk).update(version=1)
                case "SQL":
                    execute(f"UPDATE {ARTICLES} SET version = 1 WHERE id = %s", other.pk)
                case "save":
                    Article.objects.get(pk=other.pk).save()
                case "bulk_create":
                    Article.objects.bulk_create([Article(title="other")])

        def make_room(instance, add):
            if not busy:
                busy.append(True)
                write()
            return instance.position

        monkeypatch.setattr(field, "pre_save", make_room)
        match store:
            case "create":
                Article.objects.create(title="own")
            case "save":
                own.save()
            case "bulk_create":
                Article.objects.bulk_create([Article(title="own")])

        assert sorted(seen) == ["other", "own"]


class TestReturned(_Marks):
    """An update() or delete() of many rows returns them, if the receivers see nothing else."""

    @pytest.fixture
    def gone(self, seen):
        """The titles of deleted articles."""
        return self.noting(post_delete, "gone")

    @pytest.fixture
    def three(self, seen, gone):
        Article.objects.bulk_create([Article(title=title) for title in "abc"])
        seen.clear()

    def test_update_and_delete(self, three, seen, gone, statements):
        assert Article.objects.filter(title__in="ab").update(title="d") == 2
        assert seen == ["d", "d"]
        assert Article.objects.all().delete() == (3, {Article._meta.label: 3})
        assert sorted(gone) == ["c", "d", "d"]
        assert [sql.split()[0] for sql in self.marked(statements)] == ["UPDATE", "DELETE"]

    def test_nothing_found(self, three, seen, gone):
        assert Article.objects.filter(title="x").update(title="d") == 0
        assert Article.objects.none().update(title="d") == 0
        assert Article.objects.filter(title="x").delete() == (0, {})
        assert seen == gone == []

    def test_the_values_are_those_of_a_query(self, three, seen):
        found = []

        def look(instance, **kwargs):
            found.append(instance.__dict__ | {"_state": None})

        inline.critical(post_save, Article, look, dispatch_uid="values")
        Article.objects.update(title="d", version=RawSQL("version + %s", [3]))

        assert found == [one.__dict__ | {"_state": None} for one in Article.objects.order_by("pk")]

    @pytest.mark.parametrize("muted", ["bulksafe.muted", "pgtrigger.ignore"])
    def test_muted(self, three, seen, gone, muted):
        """A muted capture bypasses the receivers."""
        label = f"{Article._meta.label}:bulksafe_capture"
        with transaction.atomic():
            if muted == "bulksafe.muted":
                execute(f"SET LOCAL bulksafe.muted = '{{{label}}}'")
            else:
                (function,) = execute(
                    "SELECT tgname FROM pg_trigger "
                    f"WHERE tgrelid = '{ARTICLES}'::regclass AND tgname ~ 'capture' "
                    "AND tgtype & 4 > 0 AND tgname !~ '^!'"
                )
                execute(f"SET LOCAL pgtrigger.ignore = '{{{function[0]}}}'")
            Article.objects.bulk_create([Article(title="d")])
            if muted == "bulksafe.muted":
                Article.objects.update(title="e")
                Article.objects.all().delete()
        assert seen == gone == []

        Article.objects.bulk_create([Article(title="f")])
        Article.objects.filter(title="f").update(title="g")
        assert seen == ["f", "g"]

    @pytest.mark.parametrize("is_atomic", [False, True])
    @pytest.mark.parametrize("operation", ["UPDATE", "DELETE"])
    def test_a_trigger_changes_the_rows_once_more(self, is_atomic, operation, three, seen, gone):
        """It also changes other rows, so the write is repeated and delivered as from the buffer."""
        execute(
            "CREATE FUNCTION bypass.more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF pg_trigger_depth() = 1 THEN UPDATE {ARTICLES} SET title = title || '!'; "
            "END IF; RETURN NULL; END $$; "
            f"CREATE TRIGGER more AFTER {operation} ON {ARTICLES} "
            "FOR EACH STATEMENT EXECUTE FUNCTION bypass.more()"
        )
        first = Article.objects.filter(title="a")
        try:
            for _ in range(2):
                with transaction.atomic() if is_atomic else nullcontext():
                    first.update(position=1) if operation == "UPDATE" else first.delete()
                if operation == "UPDATE":
                    # The two of the first row are one change, as in save().
                    assert sorted(seen) == ["a!", "b!", "c!"]
                else:
                    assert (sorted(seen), gone) == (["b!", "c!"], ["a"])
                with transaction.atomic():
                    execute("SET LOCAL bulksafe.muted = '{*}'")
                    execute(f"TRUNCATE {ARTICLES} CASCADE")
                Article.objects.bulk_create([Article(title=title) for title in "abc"])
                seen.clear()
                gone.clear()
        finally:
            execute(f"DROP TRIGGER more ON {ARTICLES}")
            execute("DROP FUNCTION bypass.more")

    @pytest.mark.parametrize("is_atomic", [False, True])
    def test_a_role_that_may_not_read_all_columns(self, is_atomic, three, seen, clerk):
        execute(f"REVOKE SELECT ON {ARTICLES} FROM {clerk}")
        execute(f"GRANT SELECT (id, title) ON {ARTICLES} TO {clerk}")
        execute(f"SET ROLE {clerk}")
        try:
            for title in ("d", "e"):
                with transaction.atomic() if is_atomic else nullcontext():
                    assert Article.objects.update(title=title) == 3
        finally:
            execute("RESET ROLE")

        assert seen == ["d", "d", "d", "e", "e", "e"]

    @pytest.mark.parametrize("is_atomic", [False, True])
    def test_a_policy_that_hides_the_new_rows(self, is_atomic, three, seen, clerk):
        execute(
            f"ALTER TABLE {ARTICLES} ENABLE ROW LEVEL SECURITY; "
            f"CREATE POLICY see ON {ARTICLES} FOR SELECT USING (title <> 'hidden'); "
            f"CREATE POLICY change ON {ARTICLES} FOR UPDATE USING (true)"
        )
        execute(f"SET ROLE {clerk}")
        try:
            with transaction.atomic() if is_atomic else nullcontext():
                assert Article.objects.update(title="hidden") == 3
        finally:
            execute("RESET ROLE")
            execute(f"DROP POLICY see ON {ARTICLES}; DROP POLICY change ON {ARTICLES}")
            execute(f"ALTER TABLE {ARTICLES} DISABLE ROW LEVEL SECURITY")

        assert seen == ["hidden", "hidden", "hidden"]

    def test_a_policy_that_hides_all_rows_from_a_reading_receiver(self, three, seen, clerk):
        found = []

        def look(sender, instance, **kwargs):
            found.append((instance.title, sender.objects.count()))

        inline.critical(pre_save, Article, look, dispatch_uid="looks")
        execute(
            f"ALTER TABLE {ARTICLES} ENABLE ROW LEVEL SECURITY; "
            f"CREATE POLICY change ON {ARTICLES} FOR UPDATE USING (true)"
        )
        execute(f"SET ROLE {clerk}")
        try:
            assert Article.objects.update(title="d") == 3
        finally:
            execute("RESET ROLE")
            execute(f"DROP POLICY change ON {ARTICLES}")
            execute(f"ALTER TABLE {ARTICLES} DISABLE ROW LEVEL SECURITY")

        assert found == [("d", 0)] * 3

    @pytest.mark.parametrize("operation", ["UPDATE", "DELETE"])
    def test_triggers_before_it_decide(self, operation, three, seen, gone):
        """Rows that a trigger skips call no receiver; values that it sets are delivered."""
        execute(
            "CREATE FUNCTION bypass.before() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "IF OLD.title = 'b' THEN RETURN NULL; END IF; "
            "IF TG_OP = 'DELETE' THEN RETURN OLD; END IF; "
            "NEW.title := NEW.title || '!'; RETURN NEW; END $$; "
            f"CREATE TRIGGER before BEFORE {operation} ON {ARTICLES} "
            "FOR EACH ROW EXECUTE FUNCTION bypass.before()"
        )
        try:
            if operation == "UPDATE":
                assert Article.objects.update(title="d") == 2
                assert (seen, gone) == (["d!", "d!"], [])
            else:
                assert Article.objects.all().delete()[0] == 2
                assert (seen, sorted(gone)) == ([], ["a", "c"])
        finally:
            execute(f"DROP TRIGGER before ON {ARTICLES}; DROP FUNCTION bypass.before")

    def test_an_instead_rule_keeps_the_rows(self, three, seen, gone):
        execute(f"CREATE RULE kept AS ON DELETE TO {ARTICLES} DO INSTEAD NOTHING")
        try:
            assert Article.objects.all().delete()[0] == 0
        finally:
            execute(f"DROP RULE kept ON {ARTICLES}")

        assert gone == []
        assert len(titles()) == 3

    def test_a_function_writes_in_an_expression_of_an_update(self, three, seen):
        title = RawSQL("COALESCE(bypass.in_plpgsql()::text, 'own')", [])
        Article.objects.filter(title="a").update(title=title)

        assert sorted(seen) == sorted(["function", Article.objects.earliest("pk").title])

    def test_a_receiver_that_raises(self, three, seen):
        def refuse(instance, **kwargs):
            raise ValueError(instance.title)

        inline.critical(post_save, Article, refuse, dispatch_uid="refuse")
        with pytest.raises(ValueError, match="d"):
            Article.objects.update(title="d")

        assert titles() == ["a", "b", "c"]

    def test_in_a_pipeline(self, three, seen):
        with raw().pipeline():
            Article.objects.update(title="d")

        assert seen == ["d", "d", "d"]

    def test_a_statement_that_fails(self, three, seen):
        with pytest.raises(IntegrityError):
            Article.objects.update(title=None)
        Article.objects.update(title="d")

        assert seen == ["d", "d", "d"]

    def test_after_what_waits_already(self, three, seen):
        with transaction.atomic():
            raw().execute(insert("raw"))
            Article.objects.filter(title="raw").update(title="d")

        assert seen == ["raw", "d"]

    def test_inside_another_receiver(self, three, seen, statements):
        def change(instance, **kwargs):
            Article.objects.filter(title="b").update(title="d")

        inline.critical(post_delete, Article, change, dispatch_uid="change")
        Article.objects.get(title="a").delete()

        assert seen == ["d"]
