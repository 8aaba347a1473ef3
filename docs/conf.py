"""How Sphinx builds the documentation: `python -m sphinx -W docs build/docs`. See CONTRIBUTING.md."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))  # for the extension in docs/generated.py

project = "virtualchain"
author = "the virtualchain authors"
release = version = installed_version("virtualchain")

extensions = ["myst_parser", "sphinx.ext.autodoc", "generated"]
exclude_patterns = ["deploy"]
default_role = "literal"  # in docstrings, single backticks are code
smartquotes = False  # two hyphens begin an option
toc_object_entries_show_parents = "hide"

myst_heading_anchors = 6

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_display_short_literal_types = True
maximum_signature_line_length = 88

html_theme = "furo"
html_title = "virtualchain"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False


def for_all_readers(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object) -> None:
    """Let keyboards scroll what is wide, and screen readers know the level of the menu's parts."""
    del app, page, template, doctree
    for name, old, new in (
        ("body", "<pre>", '<pre tabindex="0">'),
        ("body", '<div class="table-wrapper', '<div tabindex="0" class="table-wrapper'),
        ("furo_navigation_tree", 'role="heading"', 'role="heading" aria-level="2"'),
    ):
        if name in context:
            context[name] = context[name].replace(old, new)


def setup(app: Sphinx) -> None:
    """Have the theme's pages completed, after the theme has made its menu."""
    app.connect("html-page-context", for_all_readers, priority=900)
