-- Sets the computed column. There is no SET search_path, which would cost more than the work: all names
-- are qualified.

CREATE FUNCTION %2$I.:"function"() RETURNS trigger
LANGUAGE plpgsql
AS %8$L;
