-- A trigger function. Its own search_path, so that the caller's has no say.

CREATE FUNCTION %2$I.:"function"() RETURNS trigger
LANGUAGE plpgsql :security
SET search_path = %3$s
AS %8$L;
