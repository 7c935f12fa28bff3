from tests.apps.pairs import definitions

MODELS = definitions.define("plain")
