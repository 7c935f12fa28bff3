"""``squashmigrations``, ``sqlmigrate``, and migrations that depend on other apps."""

from tests.migration.test_changes import order


def test_squash(project):
    project.models(order())
    project.make()
    project.models(order(name="Purchase").replace("amount__gte=0", "amount__gte=1"))
    project.make(answers="y\n")
    project.models(order(name="Purchase", status="state", meta='db_table = "Sales Orders"'))
    project.make(answers="y\n")
    project.migrate()
    migrated = project.installed()
    last = project.migrations()[-1]

    project.manage("squashmigrations", "shop", last[:4], "--no-input", "--squashed-name", "all")
    project.assert_nothing_to_make()
    project.migrate()
    assert project.installed() == migrated == project.fresh()

    project.aliases["new"] = project.database("new")
    project.migrate("--database", "new")
    assert project.installed("new") == migrated
    applied = project.run("SELECT name FROM django_migrations WHERE app = 'shop'", alias="new")
    assert ("0001_all",) in applied
    project.migrate("shop", "zero", "--database", "new")
    assert not project.installed("new")


def test_squash_of_a_model_that_came_and_went(project):
    project.models(order() + "\nclass Other(models.Model): pass")
    project.make()
    project.models("class Other(models.Model): pass")
    project.make()
    last = project.migrations()[-1]
    project.manage("squashmigrations", "shop", last[:4], "--no-input", "--squashed-name", "all")
    project.migrate()
    assert not project.installed()
    project.assert_nothing_to_make()


def test_sqlmigrate_prints_what_migrate_does(project):
    """The printed SQL, run by psql's rules, installs the same; so does what it prints backwards."""
    project.models(order())
    project.make()
    name = project.migrations()[-1]
    project.migrate()
    migrated = project.installed()
    project.aliases["by_hand"] = project.database("by_hand")
    project.run(project.manage("sqlmigrate", "shop", name).stdout, alias="by_hand")
    assert project.installed("by_hand") == migrated
    backwards = project.manage("sqlmigrate", "shop", name, "--backwards").stdout
    project.run(backwards, alias="by_hand")
    assert not project.installed("by_hand")


def test_foreign_key_to_a_new_model_of_another_app_with_a_check_on_it(project):
    """In one makemigrations: the Check comes after the column, wherever Django puts it."""
    project.models("class Order(models.Model):\n    a = models.IntegerField(default=0)\n")
    project.make()
    project.migrate()
    before = project.migrations()
    project.models(
        """
        class Order(models.Model):
            a = models.IntegerField(default=0)
            customer = models.ForeignKey("people.Customer", models.CASCADE, null=True)
            class Meta:
                triggers = [
                    bulksafe.Check(Q(customer__isnull=False) | Q(a=0), name="has_customer"),
                    bulksafe.Immutable("customer"),
                ]
        """
    )
    project.models(
        """
        class Customer(models.Model):
            favourite = models.ForeignKey(
                "shop.Order", models.CASCADE, null=True, related_name="+"
            )
            class Meta:
                triggers = [bulksafe.Immutable("favourite")]
        """,
        app="people",
    )
    project.make()
    project.assert_nothing_to_make()
    project.migrate()
    project.assert_all_installed()
    there = project.installed()
    assert there == project.fresh()
    assert project.refusal("INSERT INTO shop_order (a) VALUES (1)") == "has_customer"
    project.migrate("people", "zero")
    project.migrate("shop", before[-1])
    assert not project.installed()
    project.migrate()
    assert project.installed() == there


def test_two_new_apps_that_refer_to_each_other(project):
    for app, other in (("shop", "people"), ("people", "shop")):
        project.models(
            f"""
            class Thing(models.Model):
                other = models.ForeignKey("{other}.Thing", models.CASCADE, null=True)
                class Meta:
                    triggers = [
                        bulksafe.Immutable("other"),
                        bulksafe.Check(Q(other__isnull=False), name="paired", deferred=True),
                    ]
            """,
            app=app,
        )
    project.make()
    project.assert_nothing_to_make()
    project.migrate()
    project.assert_all_installed()
    assert project.installed() == project.fresh()
    project.migrate("people", "zero")
    project.migrate("shop", "zero")
    assert not project.installed()
