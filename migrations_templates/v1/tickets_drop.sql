-- Takes the buffer, the tickets and the names away.

DO $bulksafe$
DECLARE
    home CONSTANT name := (
:home
    );
BEGIN
    IF home IS NOT NULL THEN
        EXECUTE format(
            'DROP TABLE IF EXISTS %1$I.bulksafe_ticket CASCADE;'
            'DROP FUNCTION IF EXISTS %1$I.bulksafe_take(oid, "char", bigint, bigint), %1$I.bulksafe_prefix(), %1$I.bulksafe_ticket_open(),'
            '%1$I.bulksafe_collect(text), %1$I.bulksafe_collected(bigint),'
            '%1$I.bulksafe_stage(oid[], text[], text[], text[]), %1$I.bulksafe_staged_rows(oid, bigint, bigint),'
            '%1$I.bulksafe_unstage(bigint[]), %1$I.bulksafe_added(regclass, "char", tid[]),'
            '%1$I.bulksafe_close(), %1$I.bulksafe_open(regclass, "char", tid[], boolean);'
            'DROP TABLE IF EXISTS %1$I.bulksafe_buffer, %1$I.bulksafe_staged, %1$I.bulksafe_receiver',
            home
        );
    END IF;
END
$bulksafe$;
