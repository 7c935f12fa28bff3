-- Whether the role that writes is one of the application's: only those may take changes from the buffer.

COALESCE(
        has_function_privilege(
            :caller, to_regprocedure(format('%%I.bulksafe_take(oid,"char",bigint,bigint)', %10$L)), 'EXECUTE'
        ),
        false
    )
