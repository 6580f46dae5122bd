"""Sphinx: how the documentation becomes a site. ``make docs`` builds it in ``docs/_build``."""

from sb3_walle import __version__

project = "sb3_walle"
author = "The sb3_walle contributors"
project_copyright = author
release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence"]
# Headings down to this level can be linked to, as on GitHub.
myst_heading_anchors = 4

# Commands and tables are not Python.
highlight_language = "none"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"sb3_walle {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_theme_options = {"navigation_with_keys": True}
copybutton_exclude = ".linenos, .gp"
