-- Body of the function behind a row trigger: entered only for a row that breaks the invariant.

DECLARE
    subject jsonb;
BEGIN
    -- Checked here and not in the WHEN clause, which PostgreSQL parses again for every statement.
    IF NOT :unmuted THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'DELETE' THEN
        subject := to_jsonb(OLD);
    ELSE
        subject := to_jsonb(NEW);
    END IF;
    :violation
END
