-- The same for a rule over the old and the new row. In a partitioned table the trigger before the update has recorded
-- the violation already.

DECLARE
    subject jsonb;
BEGIN
    IF :is_recording AND NOT (
        TG_WHEN = 'AFTER' AND TG_OP = 'UPDATE'
        AND EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = TG_RELID AND t.tgname = :'move' AND t.tgenabled <> 'D')
    ) THEN
        subject := to_jsonb(NEW);
        :record
    END IF;
    RETURN NEW;
END
