"""What a hostile role tries. Each attempt is a list of statements in one transaction of hers.

``{pid}`` stands for the process of her session, ``{capture}`` for the function of a capture.
"""

from __future__ import annotations

from dataclasses import dataclass

from bulksafe.outbox import own


@dataclass(frozen=True)
class Attempt:
    """One of them.

    Attributes:
        name: what she wants.
        sql: what she sends.
        check: what the owner looks at afterwards.
    """

    name: str
    sql: str
    check: str = ""


ORDER = "INSERT INTO shop_order (number, amount, secret, slug) VALUES ('A B', 1, '', '')"
INVOICE = "INSERT INTO shop_invoice (number, secret) VALUES ('1', 's')"
INVOICES = "SELECT count(*) || ' invoices stored' FROM shop_invoice"
SLUG = "SELECT 'slug ' || slug FROM shop_order"
#: It breaks an observed rule.
BAD_ORDER = "INSERT INTO shop_order (number, amount, secret, slug) VALUES ('A B', -1, '', '')"
VIOLATIONS = (
    "SELECT count(*) || ' violations of ' || COALESCE(string_agg(DISTINCT "
    "regexp_replace(login, '.*_', '') || '/' || regexp_replace(role, '.*_', ''), ' '), 'no one') "
    "FROM bulksafe_violation"
)
EVENTS = (
    "SELECT count(*) || ' events, context ' || COALESCE(max(context::text), 'NULL') "
    "FROM bulksafe_outbox"
)
#: What she calls in place of another function. It shows whose rights it runs with.
SPY = (
    "CREATE FUNCTION public.{}({}) RETURNS {} LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'hijacked, as %', current_user; END $$"
)

TABLES = (*own.TABLES, *own.BUFFERS, "bulksafe_violation")

READING = [Attempt(f"read {name}", f"SELECT * FROM {name}") for name in TABLES]

WRITING = [
    Attempt("forge an event", "INSERT INTO bulksafe_outbox DEFAULT VALUES"),
    Attempt("forge an event in a slot", "INSERT INTO bulksafe_outbox_0 DEFAULT VALUES"),
    Attempt("forge a parked call", "INSERT INTO bulksafe_parked DEFAULT VALUES"),
    Attempt("empty the outbox", "TRUNCATE bulksafe_outbox"),
    Attempt("move a queue", "UPDATE bulksafe_cursor SET position = 0"),
    Attempt("forget what is waiting", f"{INVOICE}; DELETE FROM bulksafe_buffer", INVOICES),
    Attempt("tear up the ticket", f"{INVOICE}; DELETE FROM bulksafe_ticket", INVOICES),
    Attempt("forge a ticket", f"INSERT INTO bulksafe_ticket DEFAULT VALUES; {INVOICE}", INVOICES),
    Attempt(
        "forge a staged row",
        "INSERT INTO bulksafe_staged (source, operation) VALUES ('shop_invoice'::regclass, 'I')",
    ),
    Attempt("forget staged rows", "DELETE FROM bulksafe_staged"),
    Attempt("forge a violation", "INSERT INTO bulksafe_violation DEFAULT VALUES"),
    Attempt("forget violations", "DELETE FROM bulksafe_violation"),
    Attempt("make room for violations", "SELECT setval('bulksafe_violation_limit', 1000000)"),
    Attempt("rename receivers", "UPDATE bulksafe_receiver SET receiver = 'x'"),
    Attempt("copy the outbox out", "COPY bulksafe_outbox TO STDOUT"),
    Attempt("copy into the buffer", "COPY bulksafe_buffer FROM STDIN"),
    Attempt("lock the outbox", "LOCK TABLE bulksafe_outbox IN ACCESS EXCLUSIVE MODE"),
    Attempt("lock the buffer", "LOCK TABLE bulksafe_buffer IN ROW SHARE MODE"),
    Attempt("use up numbers", "SELECT nextval('bulksafe_outbox_seq')"),
    Attempt("set the number back", "SELECT setval('bulksafe_outbox_seq', 1)"),
    Attempt("change the slot", "SELECT setval('bulksafe_outbox_slot', 2)"),
    Attempt("read the slot", "SELECT last_value FROM bulksafe_outbox_slot"),
]

CALLING = [
    Attempt(
        "take the changes",
        f"{INVOICE}; SELECT bulksafe_take('shop_invoice'::regclass, 'I', 0, NULL)",
        INVOICES,
    ),
    Attempt("have writes collected", f"SELECT bulksafe_collect('collect'); {INVOICE}", INVOICES),
    Attempt("end the collection", "SELECT bulksafe_collected(0)"),
    Attempt(
        "read staged rows", "SELECT bulksafe_staged_rows('shop_invoice'::regclass, 0, 1::bigint)"
    ),
    Attempt(
        "stage rows",
        "SELECT bulksafe_stage("
        "ARRAY['shop_invoice'::regclass::oid], ARRAY['I'], ARRAY['()'], ARRAY['()'])",
    ),
    Attempt("take staged rows", "SELECT bulksafe_unstage(ARRAY[1]::bigint[])"),
    Attempt("ask for the prefix of event ids", "SELECT bulksafe_prefix()"),
    Attempt("call the ticket's function", "SELECT bulksafe_ticket_open()"),
    Attempt(
        "record a violation of others",
        "SELECT bulksafe_record('x', 'rule', 'shop_order', 'I', 'id=1', NULL, NULL, NULL)",
    ),
    Attempt("record it in a lane", "SELECT bulksafe_record_in_lane(NULL, 8, 1000)"),
    Attempt("call a capture's function", "SELECT {capture}()"),
    Attempt(
        "a view that takes",
        "CREATE VIEW mine AS SELECT * FROM bulksafe_take('shop_invoice'::regclass, 'I', 0, NULL); "
        f"{INVOICE}; SELECT * FROM mine",
        INVOICES,
    ),
    Attempt(
        "a trigger with the ticket's function",
        "CREATE TABLE mine (xid xid8); CREATE TRIGGER t AFTER INSERT ON mine FOR EACH ROW "
        "EXECUTE FUNCTION bulksafe_ticket_open()",
    ),
    Attempt(
        "a trigger with a capture's function",
        "CREATE TABLE mine (LIKE shop_order); CREATE TRIGGER t AFTER INSERT ON mine FOR EACH ROW "
        "EXECUTE FUNCTION {capture}()",
    ),
    Attempt(
        "the same on a temporary table",
        "CREATE TEMP TABLE mine (id int); CREATE TRIGGER t AFTER INSERT ON mine FOR EACH ROW "
        "EXECUTE FUNCTION {capture}()",
    ),
]

FORGING = [
    Attempt("write past Django", INVOICE, INVOICES),
    Attempt(
        "a mode: collect",
        "SELECT set_config('bulksafe.stage', 'collect ' || pg_current_xact_id()::text, true); "
        f"{INVOICE}",
        INVOICES,
    ),
    Attempt(
        "a mode with a ticket of her own",
        f"{INVOICE}; "
        "SELECT set_config('bulksafe.stage', 'collect ' || pg_current_xact_id()::text, true); "
        f"{INVOICE}",
        INVOICES,
    ),
    Attempt("a mark: in hand", f"{INVOICE} /* bulksafe: in hand {{pid}} shop_invoice */", INVOICES),
    Attempt(
        "a mark: answer to", f"{INVOICE} /* bulksafe: answer to {{pid}} shop_invoice */", INVOICES
    ),
    Attempt(
        "a setting: there is a ticket",
        "SELECT set_config('bulksafe.ticket', pg_current_xact_id()::text, false); " + INVOICE,
        INVOICES,
    ),
    Attempt(
        "a setting: its check is deferred",
        "SET CONSTRAINTS ALL IMMEDIATE; "
        "SELECT set_config('bulksafe.deferred', pg_current_xact_id()::text, false); " + INVOICE,
        INVOICES,
    ),
    Attempt(
        "a setting: one ticket is for all",
        "SELECT set_config('bulksafe.waiting', 'all (0,1)', false); " + INVOICE,
        INVOICES,
    ),
    Attempt(
        "a mode with the ticket of a write",
        f"{INVOICE}; "
        "SELECT set_config('bulksafe.stage', 'collect ' || pg_current_xact_id()::text || ' ' || "
        f"current_setting('bulksafe.waiting'), true); {INVOICE}",
        INVOICES,
    ),
    Attempt(
        "a setting: it is said already",
        "SELECT set_config('bulksafe.notice', 'all', false); " + INVOICE,
        INVOICES,
    ),
    Attempt("constraints at once", f"SET CONSTRAINTS ALL IMMEDIATE; {INVOICE}", INVOICES),
    Attempt("constraints at once, after", f"{INVOICE}; SET CONSTRAINTS ALL IMMEDIATE", INVOICES),
    Attempt(
        "a savepoint that is rolled back first",
        f"SAVEPOINT s; {INVOICE}; ROLLBACK TO s; {INVOICE}",
        INVOICES,
    ),
    Attempt(
        "catch the refusal",
        f"DO $$ BEGIN {INVOICE}; SET CONSTRAINTS ALL IMMEDIATE; "
        "EXCEPTION WHEN OTHERS THEN NULL; END $$",
        INVOICES,
    ),
    Attempt("a prepared transaction", f"{INVOICE}; PREPARE TRANSACTION 'hostile'", INVOICES),
    Attempt(
        "COPY in place of INSERT",
        "COPY shop_invoice (number, secret) FROM PROGRAM 'echo 1,s' (FORMAT csv)",
        INVOICES,
    ),
    Attempt(
        "mute receivers (documented)", f"SET bulksafe.muted = '{{{{*}}}}'; {INVOICE}", INVOICES
    ),
    Attempt(
        "a context that names receivers",
        'SET bulksafe.context = \'{{"bulksafe.written_by": ["ship"], "user": 1}}\'; ' + ORDER,
        EVENTS,
    ),
    Attempt("a context that is no JSON", f"SET bulksafe.context = 'x'; {ORDER}", EVENTS),
    Attempt("a context that is no object", f"SET bulksafe.context = '[1]'; {ORDER}", EVENTS),
]

SHADOWING = [
    Attempt(
        "a temporary buffer",
        f"CREATE TEMP TABLE bulksafe_buffer (LIKE pg_class); {INVOICE}",
        INVOICES,
    ),
    Attempt(
        "a temporary ticket", f"CREATE TEMP TABLE bulksafe_ticket (xid xid8); {INVOICE}", INVOICES
    ),
    Attempt("a temporary outbox", f"CREATE TEMP TABLE bulksafe_outbox (slot int); {ORDER}", EVENTS),
    Attempt(
        "a temporary sequence", f"CREATE TEMP SEQUENCE bulksafe_outbox_seq; {INVOICE}", INVOICES
    ),
    Attempt(
        "replace() in front, which the Compute's function calls",
        SPY.format("replace", "text, text, text", "text")
        + f"; SET search_path = public, pg_catalog; {ORDER}",
        SLUG,
    ),
    Attempt(
        "a better replace()",
        SPY.format("replace", "varchar, text, text", "text") + f"; {ORDER}",
        SLUG,
    ),
    Attempt(
        "a temporary replace()",
        "CREATE FUNCTION pg_temp.replace(text, text, text) RETURNS text LANGUAGE sql "
        f"RETURN 'x'; SET search_path = pg_temp, pg_catalog, public; {ORDER}",
        SLUG,
    ),
    Attempt(
        "current_setting() in front",
        SPY.format("current_setting", "text, boolean", "text")
        + f"; SET search_path = public, pg_catalog; {ORDER}",
        SLUG,
    ),
    Attempt(
        "pg_current_xact_id() in front",
        SPY.format("pg_current_xact_id", "", "xid8")
        + f"; SET search_path = public, pg_catalog; {INVOICE}",
        INVOICES,
    ),
    Attempt(
        "an operator in front",
        SPY.format("ours", "integer, integer", "boolean")
        + "; CREATE OPERATOR public.<= (FUNCTION = public.ours, LEFTARG = int, RIGHTARG = int); "
        f"SET search_path = public, pg_catalog; {ORDER}",
        SLUG,
    ),
    Attempt("a cast", "CREATE CAST (varchar AS jsonb) WITH INOUT AS IMPLICIT"),
    Attempt(
        "another bulksafe_take()",
        SPY.format("bulksafe_take", "integer, text, integer, integer", "text")
        + f"; {INVOICE}; SELECT bulksafe_take(1, 'I', 0, 0)",
        INVOICES,
    ),
    Attempt(
        "replace bulksafe_take()",
        "CREATE OR REPLACE FUNCTION "
        'bulksafe_take(wanted oid, kind "char", after bigint, most bigint) '
        "RETURNS SETOF bulksafe_buffer LANGUAGE sql AS 'SELECT NULL::bulksafe_buffer'",
    ),
    Attempt("inherit from the buffer", "CREATE TABLE mine () INHERITS (bulksafe_buffer)"),
    Attempt(
        "a slot of her own",
        "CREATE TABLE mine PARTITION OF bulksafe_outbox FOR VALUES IN (3)",
    ),
    Attempt(
        "a foreign key to the parked calls",
        "CREATE TABLE mine (id bigint REFERENCES bulksafe_parked)",
    ),
    Attempt(
        "a trigger on the buffer",
        "CREATE TRIGGER t AFTER INSERT ON bulksafe_buffer FOR EACH ROW "
        "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ),
    Attempt(
        "a rule on the buffer", "CREATE RULE r AS ON INSERT TO bulksafe_buffer DO INSTEAD NOTHING"
    ),
    Attempt("a policy on the buffer", "CREATE POLICY p ON bulksafe_buffer"),
    Attempt("an index on the buffer", "CREATE INDEX mine ON bulksafe_buffer (key)"),
]

BREAKING = [
    Attempt("disable a trigger", "ALTER TABLE shop_invoice DISABLE TRIGGER ALL"),
    Attempt("drop a function", "DROP FUNCTION bulksafe_take"),
    Attempt("change the role", "SET ROLE {owner}"),
    Attempt("change the user", "SET SESSION AUTHORIZATION {owner}"),
    Attempt("be a replica", f"SET session_replication_role = replica; {INVOICE}", INVOICES),
    Attempt("truncate the table", "TRUNCATE shop_order"),
    Attempt(
        "an event trigger",
        "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION {capture}()",
    ),
    Attempt(
        "default privileges of the owner",
        "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT ALL ON TABLES TO PUBLIC",
    ),
    Attempt("grant herself", "GRANT SELECT ON bulksafe_outbox TO PUBLIC"),
    Attempt("listen", "LISTEN bulksafe"),
    Attempt("wake the listeners (documented)", "NOTIFY bulksafe"),
    Attempt(
        "hold the lock of sleeping listeners (documented)",
        f"SELECT pg_advisory_xact_lock(1651862123, 0); {ORDER}",
        EVENTS,
    ),
    Attempt("break an observed rule", BAD_ORDER, VIOLATIONS),
    Attempt(
        "break it more often than the limit",
        "INSERT INTO shop_order (number, amount, secret, slug) "
        "SELECT 'A', -1, 's', '' FROM generate_series(1, 20)",
        VIOLATIONS,
    ),
    Attempt(
        "break it with a number of her own",
        "SELECT set_config('bulksafe.recorded_' || md5('shop.Order:observed'), '-20', false); "
        "INSERT INTO shop_order (number, amount, secret, slug) "
        "SELECT 'A', -1, 's', '' FROM generate_series(1, 20)",
        VIOLATIONS,
    ),
    Attempt(
        "break it as nobody",
        "CREATE FUNCTION pg_temp.session_user() RETURNS name LANGUAGE sql AS "
        "'SELECT ''nobody''::name'; SET search_path = pg_temp, public, pg_catalog; "
        + BAD_ORDER.replace("shop_order", "public.shop_order"),
        VIOLATIONS,
    ),
    Attempt(
        "hide it (documented)",
        "SELECT set_config('bulksafe.recorded_' || md5('shop.Order:observed'), 'full', false); "
        + BAD_ORDER,
        VIOLATIONS,
    ),
    Attempt("break a rule, and read the key in the error", ORDER.replace("1, ''", "500, ''")),
    Attempt("mute a rule (documented)", "SET bulksafe.muted = '{{*}}'; " + ORDER, SLUG),
]

GROUPS = {
    "Reading": READING,
    "Writing": WRITING,
    "Calling": CALLING,
    "Forging": FORGING,
    "Shadowing": SHADOWING,
    "Breaking": BREAKING,
}
