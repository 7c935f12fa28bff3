-- The message of a violation.

:'message'
