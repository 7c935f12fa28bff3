-- Whoever dispatches hears of it: INFO is sent whatever client_min_messages says. Once for a statement, also where
-- there is a call for each row.

            told := concat_ws(' ', statement_timestamp(), :told_source::oid, :'operation');
            IF TG_LEVEL = 'STATEMENT' OR current_setting('bulksafe.told', true) IS DISTINCT FROM told THEN
                PERFORM set_config('bulksafe.told', told, true);
                RAISE INFO USING
                    ERRCODE = 'BS001',
                    MESSAGE = format('critical receivers have to run for %%s before this transaction can be committed', TG_RELID::regclass),
                    SCHEMA = %10$L,
                    CONSTRAINT = concat_ws(' ', :told_source::oid, :'operation');
            END IF;
