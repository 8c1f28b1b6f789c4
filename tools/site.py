"""The local Sphinx extension of the site: addresses, scripts, and what the configuration file cannot say."""

from __future__ import annotations

import os
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config

from tools import vendor
from tools.project import repository


def configure(app: Sphinx, config: Config) -> None:
    """Addresses from ``pyproject.toml``, scripts from the site itself, results from the execution cache."""
    config.html_theme_options.update(
        repository_url=repository(),
        repository_branch="main",
        use_repository_button=True,
        use_issues_button=True,
    )
    if vendor.FOLDER.is_dir():
        config.html_static_path.append(str(vendor.FOLDER))
    config.mathjax_path = vendor.script("mathjax")
    config.nb_ipywidgets_js = {vendor.script("@jupyter-widgets/html-manager"): {}}
    if folder := os.environ.get("MTMM_EXECUTION_CACHE"):
        config.nb_execution_cache_path = folder


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("config-inited", configure, priority=100)  # before the theme and the notebook parser read it
    return {"parallel_read_safe": True, "parallel_write_safe": True}
