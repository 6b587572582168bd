"""The page over predictions: every slide a row, hostile names as text, what it is filtered and counted by."""

import json
import math
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import pandas as pd
import pytest

from kd_mil.reporting.prediction_page import cell, write_prediction_page
from kd_mil.slides.overlays.score_grid import shades

NASTY = "<img src=x onerror=alert(1)>' \"&%20#?"


class Body(HTMLParser):
    """Cells of the table, addresses of panels, and the tags that there are."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.panels: list[str] = []
        self.tags: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs) -> None:
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if "data-panel" in attributes:
            self.panels.append(attributes["data-panel"])

    def handle_data(self, data) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


@pytest.fixture
def page(tmp_path):
    rows = [
        {"slide_id": NASTY, "tiles": 5, "student_prob": 0.75, "student_decision": NASTY, "label": "<b>normal</b>"},
        {"slide_id": "b", "note": "<i>damaged</i>"},
        {"slide_id": "007", "tiles": 7, "student_prob": 0.1, "student_decision": "normal", "label": "normal"},
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "slides.csv", index=False)
    (tmp_path / "panels").mkdir()
    for name in (NASTY, "007"):
        (tmp_path / "panels" / f"{name}.js").touch()
    path = write_prediction_page(tmp_path, "slides.csv", "slide_id", f"Predictions: {NASTY}", shades())
    return path.read_text()


def test_hostile_names_stay_text_and_lead_to_their_panels(page):
    body = Body()
    body.feed(page)
    head, first, second, third = body.rows
    assert head == ["slide id", "student decision", "label", "tiles", "student prob", "look at"]
    assert first == [NASTY, NASTY, "<b>normal</b>", "5", "0.750", ""]
    assert second == ["b", "", "", "", "", "<i>damaged</i>"]
    assert third[0] == "007"
    assert [unquote(name) for name in body.panels] == [f"panels/{NASTY}.js", "panels/007.js"]
    assert not {"img", "i", "b"} & {tag for tag, _ in body.tags}


def test_it_needs_nothing_from_elsewhere(page):
    body = Body()
    body.feed(page)
    assert not [one for _, one in body.tags if {"src", "href"} & set(one)]
    assert not re.search(r"https?://|@import|url\(", page)


def test_what_is_worth_a_look_is_counted_and_marked(page):
    body = Body()
    body.feed(page)
    rows = [one for tag, one in body.tags if tag == "tr" and "data-decision" in one]
    assert [one["data-doubtful"] for one in rows] == ["", "1", ""]
    assert [one["data-wrong"] for one in rows] == ["1", "", ""]
    assert "3 in all · 1 &lt;img" in page
    assert "1 to look at · 1 not decided as labelled" in page


def test_classes_may_be_numbers_and_labels_of_other_names(tmp_path):
    """A class "0" beside a slide without decision stays "0"; labels that are no classes are not compared."""
    (tmp_path / "slides.csv").write_text("slide_id,m_decision,label\na,0,0\nb,1,0\nc,,\n")
    text = write_prediction_page(tmp_path, "slides.csv", "slide_id", "t", shades()).read_text()
    assert "1 0 · 1 1 · 1 not decided as labelled" in text
    (tmp_path / "slides.csv").write_text("slide_id,m_decision,label\na,0,yes\nb,1,no\n")
    text = write_prediction_page(tmp_path, "slides.csv", "slide_id", "t", shades()).read_text()
    assert "not decided as labelled" not in text


def test_the_colours_of_the_page_are_those_of_the_heat_maps(page):
    colors = json.loads(re.search(r"const COLORS = (\[.*?\]);", page)[1])
    assert colors == [part for color in shades() for part in color]
    assert colors[3] == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ("-1", "")),
        (math.nan, ("-1", "")),
        (0.123456, ("0.123456", "0.123")),
        (7.0, ("7", "7")),
        ("a", ("a", "a")),
    ],
)
def test_cells(value, expected):
    assert cell(value) == expected


def test_a_table_that_changes_meanwhile_is_read_again(tmp_path, monkeypatch):
    """Another shard writes its rows while the page over the table of before is written."""
    from kd_mil.reporting import prediction_page

    (tmp_path / "slides.csv").write_text("slide_id,tiles\na,1\n")
    render, tables = prediction_page.prediction_page, []

    def slow(table, *rest):
        tables.append(table)
        if len(tables) == 1:
            (tmp_path / "slides.csv").write_text("slide_id,tiles\na,1\nb,2\n")
        return render(table, *rest)

    monkeypatch.setattr(prediction_page, "prediction_page", slow)
    page = write_prediction_page(tmp_path, "slides.csv", "slide_id", "t", shades())
    assert [len(table) for table in tables] == [1, 2]
    assert "2 in all" in page.read_text()
