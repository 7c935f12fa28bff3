-- Body of the function behind the guard of a computed column with mode="new": see compute_new.

DECLARE
    subject jsonb := to_jsonb(NEW);
BEGIN
    IF NOT :unmuted THEN
        RETURN NEW;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF pg_catalog.array_eq(:old_inputs, :new_inputs) THEN
            RETURN NEW;
        END IF;
    END IF;
    :violation
END
