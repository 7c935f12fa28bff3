"""Every page of the documentation runs on its own project and prints what it shows."""

import itertools
import os
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from examples import server
from tests.docs import running
from tests.docs.blocks import DOCS, ERRORS, PAGES, Block, blocks_of
from tests.migration.conftest import forge  # noqa: F401
from tests.migration.project import Databases, Project

pytestmark = pytest.mark.once

#: Excerpts cannot run by themselves; text is output, or a drawing.
NOT_RUN = ("python-excerpt", "console-excerpt", "text")
RUN = ("python", "pycon", "console", "sql", "ini", "yaml")

MODELS = Path(__file__).with_name("shop_models.py")
#: It starts from nothing.
TUTORIAL = DOCS / "tutorial.md"
_numbers = itertools.count(1)


def blocks_to_run(page):
    return [block for block in blocks_of(page) if block.language in RUN]


PAGES_TO_RUN = [page for page in PAGES if page != ERRORS and blocks_to_run(page)]


class Copies(Databases):
    """Databases that are copies of one."""

    def __init__(self, url, template):
        super().__init__(url)
        self.template = template

    def new(self, name):
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
            sql.Identifier(name), sql.Identifier(self.template)
        )
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(create)
        self.made.append(name)
        return {**server.database_settings(self.url), "NAME": name}


@pytest.fixture(scope="module")
def databases(postgres):
    made = Databases(postgres.url)
    yield made
    made.drop()


@pytest.fixture(scope="module")
def template(forge, databases, tmp_path_factory):  # noqa: F811
    """The database of a shop without rules and receivers."""
    name = f"docs_{os.getpid()}"
    project = start(Project(tmp_path_factory.mktemp("site"), forge, databases, name))
    project.write("shop/models.py", MODELS.read_text())
    project.make()
    project.migrate()
    return project


@pytest.fixture
def begin(forge, databases, template, postgres, tmp_path):  # noqa: F811
    """Makes a reader, in front of the shop or of a project without models."""
    copies = Copies(postgres.url, template.prefix)

    def make(page):
        name = f"{template.prefix}_{next(_numbers)}"
        source = databases if page == TUTORIAL else copies
        project = start(Project(tmp_path / "site", forge, source, name))
        if page != TUTORIAL:
            project.write("shop/models.py", MODELS.read_text())
            project.write("shop/migrations/0001_initial.py", template.migration("0001"))
        return running.Reader(project, postgres)

    yield make
    copies.drop()


def start(project):
    project.contrib = ["django.contrib.contenttypes", "django.contrib.auth"]
    project.models("")
    return project


@pytest.mark.parametrize("page", PAGES_TO_RUN, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_page_can_be_followed(page, begin):
    reader = begin(page)
    for block in blocks_to_run(page):
        reader.run(block)


def test_each_block_runs_or_is_marked_as_not_run():
    unknown = [
        f"{block}: {block.language}"
        for page in PAGES
        for block in blocks_of(page)
        if block.language not in (*RUN, *NOT_RUN) and not block.language.startswith("{")
    ]
    assert unknown == []


def test_excerpts_are_rare():
    listed = [block for page in PAGES if page != ERRORS for block in blocks_of(page)]
    excerpts = [str(block) for block in listed if block.language.endswith("-excerpt")]
    assert len(excerpts) * 8 <= len(listed), excerpts


WRONG = [
    ("python", "assert Order.objects.exists()"),
    ("python", 'Check(Q(nothing__gt=1), name="of_no_field")'),
    ("python", '@bulksafe.critical("saved", sender=Order)\ndef f(**kwargs): ...'),
    ("python", 'BULKSAFE = {"SERCH_PATH": []}'),
    ("pycon", ">>> Order.objects.count()\n1"),
    ("console", "$ python manage.py bulksafe ls\nnothing"),
    ("console", '$ psql shop -c "SELECT 1 FROM nothing"'),
    ("console", "$ rm -r /"),
    ("sql", "SELECT nothing"),
]


def test_wrong_examples_are_found(begin):
    page = DOCS / "index.md"
    reader = begin(page)
    for line, (language, text) in enumerate(WRONG):
        with pytest.raises(AssertionError, match=rf"index\.md, line {line}"):
            reader.run(Block(page, line, language, text))
