"""The page over an extraction: every slide a row, whatever its name; keys to sort by; links that lead somewhere."""

import re
from html.parser import HTMLParser
from urllib.parse import unquote

from kd_mil.reporting.tiling_page import write_tiling_page

NASTY = "</script><b>a' \"&%20#?"


class Rows(HTMLParser):
    """Texts and attributes of the cells of a page's table."""

    def __init__(self):
        super().__init__()
        self.rows, self.pictures, self.tags = [], [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        attributes = dict(attrs)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append([attributes.get("data-key"), ""])
        if "data-picture" in attributes:
            self.pictures.append(attributes["data-picture"])

    def handle_data(self, data):
        if self.rows and self.rows[-1]:
            self.rows[-1][-1][1] += data.strip()


def row(slide, **more):
    return {
        "slide": slide,
        "status": "written",
        "tiles": 5,
        "rejected": 2,
        "tissue": 0.125,
        "message": "",
        "picture": f"qc/{slide}.jpg",
    } | more


def test_names_are_escaped_and_their_pictures_found(tmp_path):
    rows = [
        row(NASTY, message="<i>pale</i>"),
        row("b", status="failed", tiles=0, rejected=None, tissue=None, picture=None, message="damaged"),
    ]
    write_tiling_page(tmp_path / "index.html", NASTY, rows)
    page = (tmp_path / "index.html").read_text()
    found = Rows()
    found.feed(page)
    header, first, second = found.rows
    assert [text for _, text in header] == ["slide", "status", "tiles", "rejected", "tissue", "look at"]
    assert [text for _, text in first] == [NASTY, "written", "5", "2", "12.5 %", "<i>pale</i>"]
    assert [key for key, _ in first] == [NASTY, None, "5", "2", "0.125", None]
    assert [key for key, _ in second][2:5] == ["0", "-1", "-1"]
    assert [unquote(name) for name in found.pictures] == [f"qc/{NASTY}.jpg"]
    assert re.search(r"[?#]", found.pictures[0]) is None, "nothing that ends a path"
    assert found.tags.isdisjoint({"b", "i"})
    assert page.count("</script>") == 1
    assert "1 of 2 slides finished · 5 tiles · 1 failed · 1 to look at" in page
