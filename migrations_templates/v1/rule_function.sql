-- Whether a row breaks the rule, as a function of the columns that it reads. Its body is parsed here and
-- now, like that of a computed value.

CREATE FUNCTION %2$I.:"function"(%4$s) RETURNS boolean
LANGUAGE sql
RETURN NOT (:condition);
