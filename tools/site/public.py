"""What the site tells others than its readers: previews of links, search engines,
language models, and those who come to an address that is no page."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template
from textwrap import shorten
from typing import Any
from urllib.parse import urlsplit

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from tools.lesson import numbered
from tools.project import ROOT, lessons, site_address

CARDS = {f"chapters/{lesson.name}": lesson.card for lesson in lessons()}
PREVIEW = "_static/preview.png"
PREVIEW_ALT = (
    "The name of the book above its picture: inputs, encoders, fusion, sharing, heads"
)


def description(env: BuildEnvironment, page: str) -> str:
    """A page in a sentence or two: a lesson's card, another page's opening, or what its
    sections are about."""
    if page in CARDS:
        return CARDS[page]
    top = next(env.get_doctree(page).findall(nodes.section))
    parts = [child for child in top.children if isinstance(child, nodes.section)]
    opening = top.children[: top.index(parts[0])] if parts else top.children
    found = [text for child in opening for text in child.findall(nodes.paragraph)]
    text = found[0].astext() if found else ", ".join(part[0].astext() for part in parts)
    return shorten(text, 200, placeholder=" …")


def address(page: str) -> str:
    """The public address of a page."""
    return f"{site_address()}/" + ("" if page == "index" else f"{page}.html")


def describe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    """Say in the head of a page what a preview of a link to it shows."""
    if page not in app.env.found_docs:
        return
    words = description(app.env, page)
    graph = {
        "title": app.env.titles[page].astext(),
        "description": words,
        "type": "article" if page in CARDS else "website",
        "url": address(page),
        "site_name": app.config.html_title,
        "image": f"{site_address()}/{PREVIEW}",
        "image:alt": PREVIEW_ALT,
    }
    tags = [f'<meta name="description" content="{escape(words)}"/>']
    tags += [
        f'<meta property="og:{name}" content="{escape(value)}"/>'
        for name, value in graph.items()
    ]
    tags += ['<meta name="twitter:card" content="summary_large_image"/>']
    context["metatags"] = "\n".join([context.get("metatags", ""), *tags])


def write(app: Sphinx, error: Exception | None) -> None:
    """Write the files that no page links to."""
    if error is not None or app.builder.name != "html":
        return
    pages = sorted(app.env.found_docs)
    entries = "".join(f"<url><loc>{address(page)}</loc></url>\n" for page in pages)
    missing = Template(Path(__file__).with_name("404.html").read_text(encoding="utf-8"))
    files = {
        "sitemap.xml": '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
        f"{entries}</urlset>\n",
        "robots.txt": "User-agent: *\nAllow: /\n\n"
        f"Sitemap: {site_address()}/sitemap.xml\n",
        "404.html": missing.substitute(
            title=app.config.html_title, root=urlsplit(site_address()).path
        ),
        "llms.txt": for_models(app.env, app.config.html_title),
    }
    for name, text in files.items():
        (Path(app.outdir) / name).write_text(text, encoding="utf-8")


def for_models(env: BuildEnvironment, title: str) -> str:
    """The book as a list with one line for each page, in the form of llmstxt.org."""
    toc = yaml.safe_load(numbered((ROOT / "_toc.yml").read_text(encoding="utf-8")))
    text = f"# {title}\n\n> {description(env, toc['root'])}\n"
    for part in toc["parts"]:
        text += f"\n## {part['caption']}\n\n"
        for page in (chapter["file"] for chapter in part["chapters"]):
            name = env.titles[page].astext()
            text += f"- [{name}]({address(page)}): {description(env, page)}\n"
    return text
