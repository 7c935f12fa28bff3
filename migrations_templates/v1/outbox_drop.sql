-- Takes bulksafe's own tables away.

DO $bulksafe$
DECLARE
    home CONSTANT name := (
:home
    );
BEGIN
    IF home IS NOT NULL THEN
        EXECUTE format(
            'DROP TABLE IF EXISTS %1$I.bulksafe_outbox, %1$I.bulksafe_cursor, %1$I.bulksafe_started, %1$I.bulksafe_parked, '
            '%1$I.bulksafe_worker, %1$I.bulksafe_outbox_identity;'
            'DROP SEQUENCE IF EXISTS %1$I.bulksafe_outbox_seq, %1$I.bulksafe_outbox_slot, %1$I.bulksafe_call_seq',
            home
        );
    END IF;
END
$bulksafe$;
