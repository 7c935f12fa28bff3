-- Records the violation in place of refusing it. The variable "subject" holds the row's image.

PERFORM %10$I.bulksafe_record(
            :'invariant', 'rule', COALESCE(pg_partition_root(TG_RELID), TG_RELID), left(TG_OP, 1)::"char",
            concat(:key), :images, NULLIF(current_setting('bulksafe.context', true), '')::jsonb
        );
