"""report.html: one file, tables that can be sorted, nothing from elsewhere."""

import re
from html.parser import HTMLParser

from pipeline.evaluate import leaderboard, page
from tests.fixtures_report import both, made_up_report, made_up_runs

PNG = b"\x89PNG\r\n\x1a\n..."


class Tags(HTMLParser):
    """All tags with their attributes, and whether each is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def written() -> str:
    report = made_up_report(made_up_runs(both(lr=0.7, fm=0.78)))
    return page.to_html(leaderboard.to_markdown(report, ["roc.png"]), {"roc.png": PNG})


def test_the_page_needs_no_other_file_and_no_network() -> None:
    text = written()
    tags = Tags(text)
    assert tags.open == []
    sources = [value for _, attrs in tags.seen for name, value in attrs.items() if name in ("src", "href")]
    assert all(re.match(r"data:image/png;base64,|#part-\d$|#figure-roc$", value or "") for value in sources)
    assert len([tag for tag, _ in tags.seen if tag == "img"]) == 1
    assert not re.search(r"https?://|@import|url\(", text)


def test_it_has_every_table_and_heading_of_the_markdown() -> None:
    text = written()
    assert text.count("<table>") == 4
    for head in ("made-up: results on the test split", "Are the differences real?"):
        assert head in text
    assert "<strong>fm</strong>" in text
    assert text == written()


def test_every_section_and_picture_has_a_link_and_every_column_says_that_it_sorts() -> None:
    tags = Tags(written())
    links = [attrs["href"] for tag, attrs in tags.seen if tag == "a"]
    places = [f"#{attrs['id']}" for tag, attrs in tags.seen if tag in ("h2", "figure")]
    assert len(links) == len(places)
    assert set(links) == set(places)
    assert "#figure-roc" in links
    heads = [attrs for tag, attrs in tags.seen if tag == "th"]
    assert heads
    assert all(head["aria-sort"] == "none" and head["tabindex"] == "0" for head in heads)


def test_what_is_wider_than_the_page_scrolls() -> None:
    text = written()
    assert text.count('<div class="wide"><table>') == text.count("<table>")
    assert '<figure class="wide" id="figure-roc"><img ' in text


def test_a_name_of_the_data_cannot_become_a_tag() -> None:
    assert "<script>alert" not in page.to_html("# <script>alert(1)</script>\n", {})
