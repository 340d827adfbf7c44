"""How Sphinx makes a site of the project's Markdown: ``make docs``.

The pages are plain Markdown that reads well in a repository too, so what only a site needs stands
here: its table of contents, and an entrance at the top.
"""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

project = "cvt-batch"
html_title = "cvt-batch"
html_theme = "furo"
html_show_copyright = False
html_static_path = ["site.css"]
html_css_files = ["site.css"]

extensions = ["myst_parser"]
myst_heading_anchors = 3
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "jobs/*/README.md"]
exclude_patterns = [".*", "build", "demo-output", "jobs/demo/bucket"]

PAGES = (
    "Overview <../README>", "inputs", "output", "nightly", "review", "corrections", "finetune",
    "python", "cluster", "security", "model", "cli", "measurements", "architecture",
    "../jobs/deploy/README", "../jobs/demo/README", "../CONTRIBUTING",
)  # fmt: skip


def _add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    if page == root_doc:
        source[0] += "\n```{toctree}\n:hidden:\n\n" + "\n".join(PAGES) + "\n```\n"


def _add_entrance(app: Sphinx, error: Exception | None) -> None:
    page = f'<meta http-equiv="refresh" content="0; url={root_doc}.html">\n'
    (Path(app.outdir) / "index.html").write_text(page)


def setup(app: Sphinx) -> None:
    """Sphinx calls this once."""
    app.connect("source-read", _add_contents)
    app.connect("build-finished", _add_entrance)
