-- Body of the function behind a row trigger of an observed rule: entered only for a row that breaks it.

DECLARE
    subject jsonb;
BEGIN
    IF :is_recording THEN
        subject := CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
        :record
    END IF;
    RETURN NEW;
END
