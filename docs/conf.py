"""How Sphinx builds the documentation: `python -m sphinx -W docs build/docs`. See CONTRIBUTING.md."""

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

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
