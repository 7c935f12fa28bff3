-- Whether the invariant is enforced in this transaction. The body is parsed here and now.

CREATE FUNCTION %2$I.:"function"() RETURNS boolean
LANGUAGE sql
RETURN :unmuted;
GRANT EXECUTE ON FUNCTION %2$I.:"function" TO PUBLIC;
