"""A hostile role tries what it can: ``golden/hostile_roles.md`` holds what each attempt got.

``pytest tests/operation/test_hostile_roles.py --update-golden`` writes it again; read the
difference.
"""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import pytest

from examples import server
from tests.migration.conftest import databases, forge, project  # noqa: F401
from tests.operation.hostile import GROUPS, Attempt

GOLDEN = Path(__file__).with_name("golden") / "hostile_roles.md"

MODELS = """
from django.db.models import CharField, Func

class Order(models.Model):
    number = models.CharField(max_length=20)
    amount = models.IntegerField(default=0)
    secret = models.CharField(max_length=20, default="")
    slug = models.CharField(max_length=20, editable=False)

    class Meta:
        triggers = [
            bulksafe.Compute(
                "slug", Func(F("number"), function="slugify", output_field=CharField())
            ),
            bulksafe.Check(Q(amount__lte=100), name="not_too_much", message="Too much."),
            bulksafe.Check(Q(amount__gte=0), name="observed", mode="observe"),
        ]

class Invoice(models.Model):
    number = models.CharField(max_length=20)
    secret = models.CharField(max_length=20)
"""

RECEIVERS = """
import bulksafe
from django.db.models.signals import post_save

@bulksafe.critical(post_save, sender="shop.Order", run="after_commit", dispatch_uid="ship")
def ship(instance, **kwargs): ...

@bulksafe.critical(post_save, sender="shop.Invoice", dispatch_uid="post")
def post(instance, **kwargs): ...
"""

#: A function of the project's, as most are written: it takes the names in its body from the path.
TOOLS = """
CREATE SCHEMA tools;
GRANT USAGE ON SCHEMA tools TO PUBLIC;
CREATE FUNCTION tools.slugify(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
$$ BEGIN RETURN replace(lower($1), ' ', '-'); END $$;
"""

HEADER = """\
# What a hostile role gets

Written by `tests/operation/test_hostile_roles.py`. The role has a login and `INSERT` on two tables:
`shop_order` has a `Compute` over a function of the project, a `Check`, an observed `Check` with
room for 5 records and an after-commit receiver, `shop_invoice` a receiver in the transaction. In
the last column it has `CREATE` on their schema, too. Each attempt is one transaction. After a
semicolon stands what the owner finds afterwards.
"""


#: How servers of different versions say the same.
SAME = [
    (
        r"(?:must be superuser or have privileges|permission denied to COPY)[^;]*",
        "permission denied to COPY",
    ),
    (r'must be member of role "owner"', "permission denied to change default privileges"),
    (r"(permission denied to set session authorization)[^;]*", r"\1"),
]


class Mallory:
    """The role, on the project's database."""

    def __init__(self, project):  # noqa: F811
        self.project = project
        self.name = f"{project.prefix}_mallory"
        self.owner = project.run("SELECT current_user")[0][0]
        ((self.capture,),) = project.run(
            "SELECT t.tgfoid::regproc::text FROM pg_trigger AS t "
            "WHERE t.tgrelid = 'shop_invoice'::regclass AND t.tgname LIKE '%capture%' "
            "ORDER BY t.tgname LIMIT 1"
        )
        project.run(f"CREATE ROLE {self.name} LOGIN")

    def grant(self, *, create: bool):
        sequences = "shop_order_id_seq, shop_invoice_id_seq"
        self.project.run(
            f"REVOKE CREATE ON SCHEMA public FROM PUBLIC; "
            f"GRANT INSERT ON shop_order, shop_invoice TO {self.name}; "
            f"GRANT USAGE ON SEQUENCE {sequences} TO {self.name}"
        )
        if create:
            self.project.run(f"GRANT CREATE ON SCHEMA public TO {self.name}")

    def drop(self):
        self.project.run(f"DROP OWNED BY {self.name}; DROP ROLE {self.name}")

    def try_it(self, attempt: Attempt, *, create: bool) -> str:
        """What the attempt gets."""
        self.grant(create=create)
        url = server.database_url({**self.project.aliases["default"], "USER": self.name})
        try:
            with psycopg.connect(url) as connection:
                sql = attempt.sql.format(
                    pid=connection.info.backend_pid, capture=self.capture, owner=self.owner
                )
                got = self._send(connection, sql)
            if attempt.check:
                found = ", ".join(str(value) for (value,) in self.project.run(attempt.check))
                got += f"; {found or 'nothing stored'}"
        finally:
            self._clear()
        return self._normal(got)

    @staticmethod
    def _send(connection, sql: str) -> str:
        try:
            if "COPY" in sql and "STD" in sql:
                with connection.cursor().copy(sql) as copy:
                    return f"copied {b''.join(copy)!r}" if "STDOUT" in sql else "copied"
            cursor = connection.execute(sql)
            while cursor.nextset():
                pass
            got = f"rows: {cursor.fetchall()}" if cursor.description else "done"
            connection.commit()
        except psycopg.Error as error:
            detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
            return f"{error.sqlstate}: {error.diag.message_primary}{detail}"
        return got

    def _clear(self):
        self.project.run(
            f"DROP OWNED BY {self.name}; SET session_replication_role = replica; "
            "DELETE FROM shop_order; DELETE FROM shop_invoice; DELETE FROM bulksafe_outbox; "
            "DELETE FROM bulksafe_violation; "
            "ALTER SEQUENCE shop_order_id_seq RESTART; ALTER SEQUENCE shop_invoice_id_seq RESTART"
        )

    def _normal(self, text: str) -> str:
        """Without what differs between runs and between servers."""
        text = text.replace(self.name, "mallory").replace(self.owner, "owner")
        text = text.replace(self.capture, "capture()")
        for pattern, same in SAME:
            text = re.sub(pattern, same, text)
        return re.sub(r"\s+", " ", text)


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def row(*cells: str) -> str:
    return f"| {' | '.join(map(cell, cells))} |"


@pytest.fixture
def mallory(project):  # noqa: F811
    project.settings('BULKSAFE = {"SEARCH_PATH": ["tools"], "MAX_OBSERVED": 5}')
    project.run(TOOLS)
    project.models(MODELS)
    project.write("shop/receivers.py", RECEIVERS)
    project.make()
    project.migrate()
    role = Mallory(project)
    yield role
    role.drop()


def test_what_a_hostile_role_gets(mallory, request):
    lines = [HEADER]
    for title, attempts in GROUPS.items():
        lines += [
            f"## {title}\n",
            row("attempt", "SQL", "with INSERT", "with CREATE, too"),
            "|---|---|---|---|",
        ]
        for attempt in attempts:
            got = [mallory.try_it(attempt, create=create) for create in (False, True)]
            sql = attempt.sql.format(pid="PID", capture="capture", owner="owner")
            lines.append(row(attempt.name, f"`{sql}`", *got))
        lines.append("")
    text = "\n".join(lines)
    if request.config.getoption("--update-golden"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8")
    assert sum(map(len, GROUPS.values())) >= 30
