-- Takes the recorded violations away.

DO $bulksafe$
DECLARE
    home CONSTANT name := (
:home
    );
BEGIN
    IF home IS NOT NULL THEN
        EXECUTE format(
            'DROP FUNCTION IF EXISTS '
            '%1$I.bulksafe_record(text, text, regclass, "char", text, jsonb, jsonb, jsonb), '
            '%1$I.bulksafe_record_image(jsonb);'
            'DROP TABLE IF EXISTS %1$I.bulksafe_violation CASCADE;'
            'DROP SEQUENCE IF EXISTS %1$I.bulksafe_violation_limit',
            home
        );
    END IF;
END
$bulksafe$;
