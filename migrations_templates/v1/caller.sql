-- The role that writes. In a function with its owner's rights, current_user is the owner.

(CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role')::name END)
