-- Switch a trigger on again.

ALTER TABLE :table ENABLE TRIGGER :"trigger";
