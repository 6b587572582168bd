import warnings

import pytest

from kd_mil.core.errors import UserError
from kd_mil.core.tables import read_table

TEXT = "slide_id,label\nä,0\n\n b , 1 \n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_tables_of_all_spreadsheets_read_alike(tmp_path, encoding, separator, line_end):
    text = TEXT.replace(",", separator).replace("\n", line_end)
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    table = read_table(tmp_path / "t.csv", ("slide_id", "label"))
    assert table.to_dict("records") == [{"slide_id": "ä", "label": "0"}, {"slide_id": "b", "label": "1"}]
    assert table.index.tolist() == [2, 4]


def test_lines_count_as_in_an_editor(tmp_path):
    (tmp_path / "t.csv").write_text('\nid,note\n,\na,"two\nlines"\n\nb,\n')
    table = read_table(tmp_path / "t.csv", ("id",))
    assert table["id"].to_dict() == {4: "a", 7: "b"}
    assert table["note"].tolist() == ["two\nlines", ""]


@pytest.mark.parametrize("blank", ["\u200b", "\ufeff", "\u00a0", "\u2060", " \u200b ", "\u3000"])
def test_blanks_that_nobody_sees_make_no_second_patient(tmp_path, blank):
    (tmp_path / "t.csv").write_text(f"id{blank},case_id\na,P1\nb,{blank}P1{blank}\n", encoding="utf-8")
    table = read_table(tmp_path / "t.csv", ("id", "case_id"))
    assert table["case_id"].tolist() == ["P1", "P1"]


def test_cells_stay_text(tmp_path):
    (tmp_path / "t.csv").write_text('id,x\n007,NA\n1e3,"a, b"\n')
    assert read_table(tmp_path / "t.csv", ("id",)).to_numpy().tolist() == [["007", "NA"], ["1e3", "a, b"]]


def test_short_rows_and_nameless_columns_are_empty(tmp_path):
    (tmp_path / "t.csv").write_text("id,label,,\na\nb,1,,,\n")
    table = read_table(tmp_path / "t.csv", ("id",))
    assert table.to_dict("records") == [{"id": "a", "label": ""}, {"id": "b", "label": "1"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"not readable as a CSV table \(it is empty\)"),
        (b"id,label\n", "no lines below its header"),
        (b"id,other\na,b\n", "column 'label' is missing; it has 'id', 'other'"),
        (b"id,label,label\na,0,1\n", "column 'label' occurs 2 times"),
        (b"id,label\na,0\n\nb,1,2\n", "line 4: .*3 cells below 2 column names"),
        (b'id,label\n\na,"0\n', "line 3: not readable as a CSV table"),
        ("id,label\nä,0\n".encode("latin-1"), "line 2: not UTF-8 text: save the table as CSV in UTF-8"),
        ("id,label\na,0\n".encode("utf-16-le"), "binary data.*: save the table as CSV in UTF-8"),
    ],
)
def test_a_fault_is_one_line(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=rf"t\.csv.*{message}") as caught:
        read_table(tmp_path / "t.csv", ("id", "label"))
    assert "\n" not in str(caught.value)


def test_a_missing_table_and_a_folder_are_one_line(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(UserError, match="not readable as a CSV table"):
            read_table(path, ())


def test_further_columns_are_silent_unless_they_look_misspelt(tmp_path):
    (tmp_path / "t.csv").write_text("id,age,site,Fold\na,7,x,0\n")
    with pytest.warns(UserWarning, match=r"column 'Fold' is not read; did you mean 'fold'\?") as caught:
        read_table(tmp_path / "t.csv", ("id",), ("split", "fold", "case_id"))
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_table(tmp_path / "t.csv", ("id",), ("split", "case_id"))
