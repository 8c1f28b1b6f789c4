"""What a source writes for the site, in a form that every front end shows."""

import re

import pytest

from tools import chapters, citations

CARUANA = "[Caruana, 1997](https://doi.org/10.1023/A:1007379606734)"
PAIR = "[Hu and Singh, 2021](https://arxiv.org/abs/2102.10772)"
MANY = "[Neverova et al., 2016](https://doi.org/10.1109/TPAMI.2015.2461544)"


@pytest.mark.parametrize(
    "roles, links",
    [
        ("as in {cite}`caruana1997`.", f"as in ({CARUANA})."),
        ("{cite:t}`caruana1997` began it", f"{CARUANA} began it"),
        ("both {cite}`hu2021unit,neverova2016`", f"both ({PAIR}; {MANY})"),
        (
            "(see {cite:t}`hu2021unit` and {cite}`caruana1997`)",
            f"(see {PAIR} and ({CARUANA}))",
        ),
        ('no citation: [site](https://example.org "a title") and `cite`', None),
    ],
)
def test_roles_become_links(roles, links):
    assert citations.to_links(roles) == (links or roles)


def test_an_unknown_key_is_an_error():
    with pytest.raises(KeyError, match="nobody1900"):
        citations.to_links("{cite}`nobody1900`")


def test_every_entry_has_an_address_and_a_readable_name():
    for key, entry in citations.bibliography().entries.items():
        assert re.match(r"https://[\w.]+/\S+$", citations.address(entry)), key
        assert re.fullmatch(r"\[[\w .’'-]+, \d{4}\]\(\S+\)", citations.link(key)), key


def test_directives_become_text_and_equations_stand_between_dollars():
    source = """\
```{math}
:label: eq-mapping-sum
a + b
= c
```

````{solution} add-up
:class: dropdown

```python
a + b
```
````

```python
plain = "code"
```"""
    assert (
        chapters.portable(source)
        == """\
$$
a + b
= c
$$ (eq-mapping-sum)

:::{solution} add-up
:class: dropdown

```python
a + b
```
:::

```python
plain = "code"
```"""
    )
