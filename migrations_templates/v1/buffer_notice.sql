-- Notifies the writing session: INFO is sent regardless of client_min_messages. One notice per statement, even if
-- rows are captured one by one. It gives the number of rows that are captured together.

            notice := concat_ws(' ', statement_timestamp(), :model_source::oid, :'operation');
            IF TG_LEVEL = 'STATEMENT' OR current_setting('bulksafe.notice', true) IS DISTINCT FROM notice THEN
                PERFORM set_config('bulksafe.notice', notice, true);
                RAISE INFO USING
                    ERRCODE = 'BS001',
                    MESSAGE = format('critical receivers have to run for %%s before this transaction can be committed', TG_RELID::regclass),
                    SCHEMA = %10$L,
                    CONSTRAINT = concat_ws(' ', :model_source::oid, :'operation', cardinality(places));
            END IF;
