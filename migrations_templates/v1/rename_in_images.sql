-- Events that wait have the rows' columns under their former names.

DO $bulksafe$
BEGIN
    IF to_regclass('bulksafe_outbox') IS NULL
        OR NOT has_table_privilege('bulksafe_outbox', 'SELECT, UPDATE')
        OR NOT has_table_privilege('bulksafe_parked', 'SELECT, UPDATE')
    THEN
        RETURN;
    END IF;
    UPDATE bulksafe_outbox AS o
    SET old = o.old - :'old' || jsonb_build_object(:'new', o.old -> :'old'),
        new = o.new - :'old' || jsonb_build_object(:'new', o.new -> :'old')
    WHERE o.source = ANY (ARRAY[:tables]::regclass[])
      AND (jsonb_exists(o.old, :'old') OR jsonb_exists(o.new, :'old'));
    UPDATE bulksafe_parked AS o
    SET old = o.old - :'old' || jsonb_build_object(:'new', o.old -> :'old'),
        new = o.new - :'old' || jsonb_build_object(:'new', o.new -> :'old')
    WHERE o.source = ANY (ARRAY[:tables]::regclass[])
      AND (jsonb_exists(o.old, :'old') OR jsonb_exists(o.new, :'old'));
END
$bulksafe$;
