"""Sphinx configuration."""

import os

import django
from pygments.lexers import BashSessionLexer, PythonLexer

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

project = "bulksafe"
author = "bulksafe contributors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "bulksafe"
html_static_path = ["static"]
html_css_files = ["pages.css"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_typehints = "description"


def setup(app):
    # The tests run blocks of Python and of the console, but not excerpts.
    app.add_lexer("python-excerpt", PythonLexer)
    app.add_lexer("console-excerpt", BashSessionLexer)
