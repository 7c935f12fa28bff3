-- The body of the DO block that marks a capture as switched on or off, beside ALTER TABLE … ENABLE/DISABLE TRIGGER.
--
-- Writers ask for the mark once they hold a lock on the table. In a transaction with REPEATABLE READ, a query of
-- pg_trigger shows the state at the transaction's snapshot, but triggers fire by the present one. pg_get_functiondef()
-- reads the present one, too, so the mark is on the function. application_name has no effect there: a disabled trigger
-- calls no function.

DECLARE
    item pg_catalog.record;
BEGIN
    FOR item IN
        SELECT t.tgfoid::pg_catalog.regprocedure AS function
        FROM pg_catalog.pg_trigger AS t
        WHERE t.tgrelid = :'table'::pg_catalog.regclass AND t.tgname = :'trigger' AND t.tgparentid = 0
    LOOP
        EXECUTE pg_catalog.format('ALTER FUNCTION %s %s', item.function, :'change');
    END LOOP;
END
