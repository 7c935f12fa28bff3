-- Body of the function that notes an update of a broken row that moves it to another partition, for refuse_arriving.

DECLARE
    leaves boolean;
BEGIN
    EXECUTE format(
        'SELECT (%%s) IS NOT TRUE FROM (SELECT ($1).*) AS moved', COALESCE(pg_get_partition_constraintdef(TG_RELID), 'true')
    ) INTO leaves USING NEW;
    IF leaves THEN
        PERFORM set_config(
            'bulksafe.moved',
            concat(current_setting('bulksafe.moved', true), ' ', md5(concat(:'invariant', to_jsonb(NEW)))),
            true
        );
    END IF;
    RETURN NEW;
END
