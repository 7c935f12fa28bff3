-- Whether the violations of this transaction are recorded: the rule is not muted, and there was room for the last
-- one. Each row that breaks the rule asks for this, which bounds the cost of a statement with many of them.

(current_setting('bulksafe.recorded_' || md5(:'invariant'), true) IS DISTINCT FROM 'full' AND :unmuted)
