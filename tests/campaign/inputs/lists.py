"""Lists of slides as spreadsheets and people write them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.campaign.cases import Case, Check
from tests.campaign.checks import cell, done, either, everything, exits, listed, refused, warned
from tests.campaign.inputs.pictures import TILES, TILING, aperio, good, picture, tissue

LIST = ("slides=in/list.csv", "out=out", *TILING)


def extract(name: str, kind: str, write: Callable[[Path], Any], check: Check, *settings: str, **more: Any) -> Case:
    return Case(name, kind, write, check, command="extract", settings=settings or LIST, **more)


def listing(text: str | bytes, *files: str) -> Callable[[Path], None]:
    """A list, and a good slide of each name."""

    def write(folder: Path) -> None:
        for file in files or ("a.svs",):
            good(folder / file)
        (folder / "list.csv").write_bytes(text.encode() if isinstance(text, str) else text)

    return write


def cases() -> Iterator[Case]:
    """Tables as spreadsheets and people write them."""
    kind, one = "tables", done("s", tiles=TILES)
    plain = "slide_path,slide_id,label\na.svs,s,tumour\n"
    named = cell("manifest.csv", "s", label="tumour")
    for name, text in (
        ("utf8_bom", "\ufeff" + plain),
        ("crlf", plain.replace("\n", "\r\n")),
        ("old_mac", plain.replace("\n", "\r")),
        ("semicolons", plain.replace(",", ";")),
        ("tabs", plain.replace(",", "\t")),
        ("no_last_newline", plain.rstrip()),
        ("blank_lines", plain.replace("\n", "\n\n")),
        ("blanks_around", plain.replace(",", " , ")),
        ("trailing_commas", plain.replace("\n", ",,\n")),
        ("quoted", 'slide_path,slide_id,label\n"a.svs","s","tumour"\n'),
        ("capitals", "Slide_Path,Slide_ID,Label\na.svs,s,tumour\n"),
        ("extra_column", "slide_path,slide_id,label,scanner\na.svs,s,tumour,Aperio\n"),
        ("index_column", ",slide_path,slide_id,label\n0,a.svs,s,tumour\n"),
        ("utf16", plain.encode("utf-16")),
        ("utf16_tabs", plain.replace(",", "\t").encode("utf-16")),
        ("wsi", plain.replace("slide_path", "wsi")),
        ("blank_row", plain + ",,\n"),
        ("windows_1252", (plain + "a.svs,é,tumour\n").encode("cp1252")),
    ):
        yield extract(
            f"table_{name}",
            kind,
            listing(text),
            either(everything(one, named, exits(0)), refused("list.csv", "UTF-8|comma|separat|column|semicolon|tab")),
        )
    for name, text, words in (
        ("empty", "", "list.csv"),
        ("header_only", "slide_path,slide_id\n", "list.csv.*(row|line)"),
        ("no_path", "slide_id,label\ns,1\n", "slide_path"),
        ("missing_slide", "slide_path\nb.svs\n", "line 2.*b.svs"),
        ("more_cells", plain + "a.svs,t,x,y,z\n", "list.csv"),
        ("open_quote", 'slide_path,slide_id\n"a.svs,s\n', "list.csv"),
        ("binary", bytes(range(256)), "list.csv"),
        ("nul", b"slide_path,slide_id\na.svs,a\0b\n", "list.csv"),
        ("twice_header", "slide_path,slide_path\na.svs,a.svs\n", "list.csv|twice|column"),
        ("spreadsheet", b"PK\x03\x04" + bytes(100), "list.csv"),
        ("no_file_cell", "slide_path,slide_id\n,s\n", "line 2"),
        ("folder_cell", "slide_path,slide_id\n.,s\n", "line 2"),
        ("split_word", "slide_path,split\na.svs,Training\n", "line 2.*split"),
        ("missing_annotation", "slide_path,annotation_path\na.svs,b.xml\n", "line 2.*b.xml"),
    ):
        yield extract(f"table_{name}", kind, listing(text), refused(words))
    for column, text in (
        ("slide", "slide_path,slide_id\na.svs,s\nnone.svs,t\n"),
        ("annotation", "slide_path,slide_id,annotation_path\na.svs,s,\na.svs,t,none.xml\na.svs,u,list.csv\n"),
    ):
        check = everything(one, listed("t", "none", "exist"), exits(0))
        yield extract(f"table_one_missing_{column}", kind, listing(text), check)
    for value in ("0", "-1", "nan", "inf", "fine", "0;5", "1e400"):
        yield extract(
            f"table_mpp_{value}", kind, listing(f"slide_path,slide_id,mpp\na.svs,s,{value}\n"), refused("line 2.*mpp")
        )
    for value in ("1e-9", "1e9"):
        yield extract(
            f"table_mpp_{value}",
            kind,
            listing(f"slide_path,slide_id,mpp\na.svs,s,{value}\nb.svs,t,\n", "a.svs", "b.svs"),
            either(refused("line 2.*mpp"), everything(listed("s", "mpp"), done("t", tiles=TILES))),
        )
    yield extract(
        "table_mpp_comma",
        kind,
        listing('slide_path,slide_id,mpp\na.svs,s,"1,0"\n'),
        either(one, refused("line 2.*mpp")),
    )
    for label in ("NA", "nan", "None", "null", "N/A", "1e3", "007", "TRUE"):
        yield extract(
            f"label_{label.replace('/', '_')}",
            kind,
            listing(f"slide_path,slide_id,label\na.svs,s,{label}\n"),
            everything(one, cell("manifest.csv", "s", label=label)),
        )
    yield extract(
        "table_fold",
        "columns kept",
        listing("slide_path,slide_id,label,fold\na.svs,s,1,3\n"),
        everything(one, cell("manifest.csv", "s", fold="3")),
    )
    yield extract(
        "table_own_column",
        "columns kept",
        listing("slide_path,slide_id,label,stage\na.svs,s,1,III\n"),
        everything(one, cell("manifest.csv", "s", stage="III")),
    )
    yield extract(
        "case_blanks",
        "columns kept",
        listing("slide_path,slide_id,case_id,label\na.svs,s,P1 ,1\nb.svs,t,P1,1\n", "a.svs", "b.svs"),
        everything(cell("manifest.csv", "s", case_id="P1"), cell("manifest.csv", "t", case_id="P1")),
    )
    yield extract(
        "label_blanks",
        "columns kept",
        listing("slide_path,slide_id,label\na.svs,s,tumour \n"),
        cell("manifest.csv", "s", label="tumour"),
    )
    yield extract(
        "fill_in",
        "mpp fills in",
        lambda folder: (
            aperio(folder / "a.svs", tissue(0.5)),
            picture(folder / "b.png", tissue()),
            (folder / "list.csv").write_text("slide_path\na.svs\nb.png\n"),
        ),
        everything(
            done("a", tiles=TILES, mpp=0.5), done("b", tiles=TILES, mpp=1.0), cell("manifest.csv", "b", mpp="1.0")
        ),
        *LIST,
        "mpp=1.0",
    )
    yield extract(
        "two_scales",
        "mpp fills in",
        listing("slide_path,slide_id,mpp\na.svs,s,1.0\na.svs,t,0.5\n"),
        everything(done("s", mpp=1.0, tiles=TILES), done("t", mpp=0.5)),
    )
    yield extract(
        "same_slide_twice",
        "one slide, two ids",
        listing("slide_path,slide_id,label,split\na.svs,s,1,train\na.svs,t,0,test\n"),
        either(refused("a.svs|twice|same"), warned("a.svs|twice|same")),
    )
    yield extract("labels_two_ways", kind, listing("slide_path,slide_id,label\na.svs,s,1\na.svs,s,0\n"), refused("'s'"))
    yield extract(
        "labels_for_others",
        kind,
        lambda folder: (listing(plain)(folder), (folder / "labels.csv").write_text("slide_id,label\nx,1\n")),
        refused("labels.csv.*line 2.*x"),
        *LIST,
        "labels=in/labels.csv",
    )
