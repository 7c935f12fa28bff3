-- Sets the computed column, with the rights of the role that writes: nothing that its path or its functions lead astray
-- can do more than that role. A SET search_path would cost more than the work.

CREATE FUNCTION %2$I.:"function"() RETURNS trigger
LANGUAGE plpgsql
AS %8$L;
REVOKE ALL ON FUNCTION %2$I.:"function" FROM PUBLIC;
