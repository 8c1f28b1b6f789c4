"""Citations for front ends that know no roles.

A source cites with a role, ``{cite}`caruana1997```, which the site resolves, and which
JupyterLab, Colab and GitHub cannot. In a derived notebook it is a link to the work,
``([Caruana, 1997](https://doi.org/…))``, which reads well everywhere.
"""

from __future__ import annotations

import re
from functools import cache

from pybtex.database import BibliographyData, Entry, parse_file

from tools.project import ROOT

ROLE = re.compile(r"\{cite(?P<textual>:t)?\}`(?P<keys>[^`]+)`")


@cache
def bibliography() -> BibliographyData:
    """The content of ``references.bib``."""
    return parse_file(str(ROOT / "references.bib"), bib_format="bibtex")


def address(entry: Entry) -> str:
    """Where the work can be read: its DOI, its preprint, or the page that the entry
    names."""
    fields = entry.fields
    if "doi" in fields:
        return f"https://doi.org/{fields['doi']}"
    return (
        f"https://arxiv.org/abs/{fields['eprint']}"
        if "eprint" in fields
        else fields["url"]
    )


def link(key: str) -> str:
    """One work as a Markdown link, as in ``[Hu and Singh, 2021](https://…)``.

    Raises:
        KeyError: when ``references.bib`` has no such entry.
    """
    entry = bibliography().entries[key]
    names = [
        " ".join(person.prelast_names + person.last_names)
        for person in entry.persons["author"]
    ]
    who = f"{names[0]} et al." if len(names) > 2 else " and ".join(names)
    return f"[{who}, {entry.fields['year']}]({address(entry)})"


def to_links(text: str) -> str:
    """Replace the roles by links."""

    def replace(match: re.Match[str]) -> str:
        links = "; ".join(link(key.strip()) for key in match["keys"].split(","))
        return links if match["textual"] else f"({links})"

    return ROLE.sub(replace, text)
