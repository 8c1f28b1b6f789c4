"""Which letters stand for something in a formula, and what they mean in the whole
book."""

from __future__ import annotations

import re
from functools import cache

from tools.project import ROOT

PAGE = ROOT / "pages" / "notation.md"
_GROUP = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
_COMMAND = rf"\\[A-Za-z]+(?:\s*{_GROUP})?"
_LEFT_OUT = (
    rf"_\s*(?:{_GROUP}|{_COMMAND}|.)",  # subscripts
    r"\^\{\([^{}]*\)\}",  # numbers of samples and steps, as in x^{(i)}
    rf"\\(?:text|mathrm|operatorname\*?|mathbb|begin|end)\s*(?:{_GROUP}|.)",  # words
)
_GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta iota kappa lambda mu nu "
    "xi pi rho sigma tau phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma "
    "Phi Psi Omega ell"
).split()


def symbols(formula: str) -> list[str]:
    r"""The letters that stand for something, in order, each once: `$\hat y_t =
    \mathcal L + \log \theta$` has `y`, `\mathcal L` and `\theta`. An accent and a
    subscript make no other letter; words, operators and names of functions are none."""
    for pattern in _LEFT_OUT:
        formula = re.sub(pattern, " ", formula)
    found = re.findall(r"\\mathcal\s*\{?([A-Z])|\\([A-Za-z]+)|([A-Za-z])", formula)
    letters = [
        rf"\mathcal {script}" if script else letter or rf"\{name}"
        for script, name, letter in found
        if script or letter or name in _GREEK
    ]
    return list(dict.fromkeys(letters))


@cache
def meanings() -> list[tuple[str, str]]:
    """Letter, meaning: the rows of the tables in `pages/notation.md`. What a formula in
    the first column is about is its first letter."""
    rows = re.findall(
        r"^\| (\$.*?) \| (.*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    return [
        (symbols(formula)[0], meaning)
        for first, meaning in rows
        for formula in re.findall(r"\$([^$]+)\$", first)
    ]
