-- The computed value, as a function of the columns that it reads. Its body is parsed here and now: what
-- it means cannot change with the search_path of the session that writes.

CREATE FUNCTION %2$I.:"function"(%4$s) RETURNS %6$s
LANGUAGE sql
RETURN :expression;
GRANT EXECUTE ON FUNCTION %2$I.:"function" TO PUBLIC;
