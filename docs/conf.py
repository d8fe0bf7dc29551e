"""The documentation site: `make docs` builds it into out/docs, and runs every tutorial on the demo model."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "tl_attnstats"
author = "the authors of tl_attnstats"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinxarg.ext",
    "sphinx_copybutton",
    "sphinx_design",
    "generated",  # docs/generated.py
]
exclude_patterns = ["**/.ipynb_checkpoints"]
suppress_warnings = ["myst.header", "myst-nb.lexer"]  # written by other tools, some pages skip a level of headings

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "substitution"]
myst_heading_anchors = 3

# NOTEBOOKS=off leaves the tutorials' cells without output.
nb_execution_mode = os.environ.get("NOTEBOOKS", "force")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
os.environ["PYTHONSTARTUP"] = str(HERE / "kernel_start.py")  # kernels start in the repository's root
os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")  # tqdm's, in every kernel without ipywidgets
nb_mime_priority_overrides = [("html", "text/html", 0)]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "tl_attnstats"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
copybutton_exclude = ".linenos, .gp, .go"

linkcheck_ignore = [r"https?://.*"]  # links to other sites are not followed
