from tests.apps.pairs import definitions

definitions.define("critical")
