"""Which parts of Django's suite are run."""

#: The parts about what bulksafe changes in Django: writing, deleting, signals, transactions,
#: connections, migrations, and what is built on them.
DEFAULT = """
    aggregation annotations async backends basic bulk_create composite_pk constraints
    contenttypes_tests custom_managers custom_pk datatypes db_functions db_utils defer delete
    delete_regress dispatch expressions expressions_case field_defaults fixtures fixtures_regress
    force_insert_update foreign_object from_db_value generic_relations get_or_create introspection
    inspectdb known_related_objects lookup m2m_and_m2o m2m_intermediary m2m_multiple m2m_recursive
    m2m_regress m2m_signals m2m_through m2m_through_regress managers_regress many_to_many
    many_to_one migrate_signals migration_test_data_persistence migrations migrations2
    model_fields model_inheritance model_inheritance_regress multiple_database one_to_one
    order_with_respect_to prefetch_related proxy_models queries raw_query reserved_names
    save_delete_hooks schema select_for_update serializers sessions_tests signals test_client
    test_runner test_utils timezones transaction_hooks transactions unmanaged_models update
    update_only_fields validation
""".split()

#: Extensions that migrations of the suite create, and that not every server has.
EXTENSIONS = {"db_functions": ["pgcrypto"], "postgres_tests": ["citext", "hstore", "uuid-ossp"]}


def default_labels(available):
    return [label for label in DEFAULT if label in available]


def without_extensions(labels, missing):
    """Those of the labels that cannot be run on a server, each with what it lacks."""
    return {
        label: lacking
        for label in labels
        if (lacking := sorted(set(EXTENSIONS.get(label.split(".")[0], ())) & missing))
    }
