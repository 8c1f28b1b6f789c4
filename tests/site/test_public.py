"""What search engines, previews of links, language models and lost visitors get."""

import re
from urllib.parse import urlsplit
from xml.etree import ElementTree

from PIL import Image

from tools.project import lessons, site_address

HEAD = """() => Object.fromEntries([...document.querySelectorAll('head meta')].map(
    meta => [meta.getAttribute('property') || meta.name, meta.content]))"""


def test_every_page_of_the_book_is_in_the_map_and_tells_what_it_is_about(site):
    tree = ElementTree.parse(site / "sitemap.xml")
    listed = [entry.text for entry in tree.iter() if entry.tag.endswith("loc")]
    assert len(set(listed)) == len(listed) > len(lessons())
    for place in listed:
        assert place.startswith(f"{site_address()}/")
        name = place.removeprefix(f"{site_address()}/") or "index.html"
        text = (site / name).read_text(encoding="utf-8")
        assert f'<link rel="canonical" href="{site_address()}/{name}"' in text
        (words,) = re.findall(r'<meta name="description" content="([^"]+)"', text)
        assert 20 < len(words) <= 260
    robots = (site / "robots.txt").read_text(encoding="utf-8")
    assert f"Sitemap: {site_address()}/sitemap.xml" in robots


def test_a_link_to_a_lesson_has_a_preview(visit, site):
    lesson = lessons()[1]
    head = visit().open(f"chapters/{lesson.name}.html").evaluate(HEAD)
    assert head["description"] == head["og:description"] == lesson.card
    assert head["og:title"] == lesson.title and head["og:type"] == "article"
    assert head["og:url"] == f"{site_address()}/chapters/{lesson.name}.html"
    picture = head["og:image"].removeprefix(f"{site_address()}/")
    assert Image.open(site / picture).size == (1200, 630)


def test_models_find_every_lesson_with_its_line(site):
    text = (site / "llms.txt").read_text(encoding="utf-8")
    assert text.startswith("# Everything Is a Mapping\n\n> ")
    for lesson in lessons():
        place = f"{site_address()}/chapters/{lesson.name}.html"
        assert f"- [{lesson.title}]({place}): {lesson.card}\n" in text
    for place in re.findall(rf"\({site_address()}/([^)]+)\)", text):
        assert (site / place).exists()


def test_a_lost_visitor_finds_back_from_any_depth(visit, address):
    """The hosting answers with the page whatever the address, below the site's path."""
    root = urlsplit(site_address()).path
    opened = visit(width=390)

    def host(route):
        place = urlsplit(route.request.url).path.removeprefix(root)
        lost = "/no/such/" in place
        route.fulfill(
            response=route.fetch(url=address + ("/404.html" if lost else place))
        )

    opened.page.route(f"**{root}/**", host)
    page = opened.open(f"{root[1:]}/no/such/page.html")
    assert page.locator("h1").inner_text() == "This arrow leads nowhere"
    page.get_by_role("searchbox").fill("fusion")
    page.get_by_role("button").click()
    page.locator("#search-results li a").first.wait_for()
    page.goto(f"{address}{root}/no/such/page.html")
    page.get_by_role("link").click()
    assert urlsplit(page.url).path == f"{root}/"
    assert page.locator("h1:visible").inner_text().startswith("Everything Is a Mapping")
