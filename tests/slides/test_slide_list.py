"""Folders, patterns and CSVs to slides and labels; every fault names its file and line."""

from pathlib import Path

import pytest

from kd_mil.core.errors import UserError
from kd_mil.slides.slide_labels import read_labels, with_labels
from kd_mil.slides.slide_list import SlideEntry, list_slides


@pytest.fixture
def folder(tmp_path):
    """Two slides, one below, and files that are none."""
    root = tmp_path / "slides"
    (root / "deep").mkdir(parents=True)
    for name in ("b.svs", "a.TIFF", "deep/c.svs", "notes.txt", ".hidden.svs", "b.xml"):
        (root / name).touch()
    return root


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def ids(entries: list[SlideEntry]) -> list[str]:
    return [entry.slide_id for entry in entries]


def test_folder_pattern_and_single_slide(folder):
    assert ids(list_slides(folder)) == ["a", "b"]
    assert ids(list_slides(folder, recursive=True)) == ["a", "b", "c"]
    assert ids(list_slides(f"{folder}/**/*.svs")) == ["b", "c"]
    assert list_slides(folder / "b.svs") == [SlideEntry("b", folder / "b.svs", case_id="b")]
    (folder / "c[1].svs").touch()
    assert ids(list_slides(folder / "c[1].svs")) == ["c[1]"]


def test_csv_with_every_column(folder):
    path = write(
        folder / "list.csv",
        "slide_path,slide_id,case_id,label,split,mpp,annotation_path,fold,age",
        "b.svs,B,patient1,tumour,train,0.25,b.xml,3,71",
        "deep/c.svs,C,,,,,,,",
    )
    assert list_slides(path) == [
        SlideEntry("B", folder / "b.svs", "patient1", "tumour", "train", 0.25, folder / "b.xml", 3, {"age": "71"}),
        SlideEntry("C", folder / "deep/c.svs", "C"),
    ]


def test_tridents_csv_and_absolute_paths(folder, tmp_path):
    path = write(tmp_path / "elsewhere.csv", "wsi,mpp", f"{folder / 'b.svs'},0.5", "slides/a.TIFF,")
    assert [(entry.slide_id, entry.mpp) for entry in list_slides(path)] == [("b", 0.5), ("a", None)]


def test_whole_numbers_of_pandas_are_folds(folder):
    """A column with an empty cell is one of floats: 0.0, 1.0."""
    (folder / "list.csv").write_text("slide_path,fold\nb.svs,1.0\na.TIFF,\n")
    assert [entry.fold for entry in list_slides(folder / "list.csv")] == [1, None]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["slide_path", "none.svs"], r"list\.csv, line 2: slide 'none\.svs' does not exist"),
        (["slide_path,slide_id", "b.svs,X", "a.TIFF,X"], r"'X' belongs to both '.*b\.svs' and '.*a\.TIFF'"),
        (["slide_path", "b.svs", "b.svs"], "'b' belongs to both"),
        (["slide_id,label", "b,1"], "needs one column `slide_path`"),
        (["slide_path,wsi", "b.svs,b.svs"], "needs one column `slide_path`"),
        (["slide_path,mpp", "a.TIFF,0.5", "b.svs,a lot"], r"line 3: mpp 'a lot' is no positive number"),
        (["slide_path,mpp", "b.svs,-0.5"], "'-0.5' is no positive number"),
        (["slide_path,mpp", "b.svs,nan"], "'nan' is no positive number"),
        (["slide_path,split", "b.svs,training"], "split 'training' is none of train, val, test"),
        (["slide_path,annotation_path", "b.svs,c.xml"], r"line 2: annotation 'c\.xml' does not exist"),
        (["slide_path,slide_id", "b.svs,../../etc"], r"list\.csv, line 2: id '../../etc' cannot name a file"),
        (["slide_path,label", "b.svs,=1+1"], r"list\.csv, line 2: label '=1\+1' begins as a formula"),
        (["slide_path,case_id", "b.svs,@p"], r"list\.csv, line 2: case_id '@p' begins as a formula"),
        (["slide_path,fold", "b.svs,1.5"], r"line 2: fold '1\.5' is not a number 0, 1, 2"),
        (["slide_path"], "no lines below its header"),
        (["slide_path,label", "b.svs,1,2"], "3 cells below 2 column names"),
        (["slide_path", "", "none.svs"], r"list\.csv, line 3: slide 'none\.svs' does not exist"),
    ],
)
def test_faults_of_a_csv(folder, lines, message):
    with pytest.raises(UserError, match=message) as failure:
        list_slides(write(folder / "list.csv", *lines))
    assert "\n" not in str(failure.value)


def test_nothing_found(folder, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"no slides in .*/\*\*/\*\.svs looks deeper"):
        list_slides(tmp_path / "none")
    with pytest.raises(UserError, match="no slides"):
        list_slides(tmp_path / "absent")
    with pytest.raises(UserError, match=r"absent\.csv: not readable"):
        list_slides(tmp_path / "absent.csv")
    (folder / "deep" / "b.svs").touch()
    with pytest.raises(UserError, match="'b' belongs to both"):
        list_slides(folder, recursive=True)


def test_labels_join_by_slide_id(folder, tmp_path):
    labels = write(tmp_path / "labels.csv", "case_id,slide_id,label,fold,age", "p7,b,tumour,2,71")
    first, second = with_labels(list_slides(folder), labels)
    assert (first.label, first.case_id, first.fold) == (None, "a", None)
    assert (second.label, second.case_id, second.fold, second.path) == ("tumour", "p7", 2, folder / "b.svs")


def test_labels_of_other_tools_join_too(folder, tmp_path):
    stamp = write(tmp_path / "stamp.csv", "PATIENT,FILENAME,label", "p7,b.svs,tumour")
    _, second = with_labels(list_slides(folder), stamp)
    assert (second.slide_id, second.label, second.case_id) == ("b", "tumour", "p7")


def test_a_misspelt_column_is_a_warning(folder):
    path = write(folder / "list.csv", "slide_path,splits", "b.svs,train")
    with pytest.warns(UserWarning, match=r"list\.csv: column 'splits' is not read; did you mean 'split'\?"):
        [entry] = list_slides(path)
    assert entry.split is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["slide_id,label", "a,0", "bb,1"],
            r"labels\.csv, line 3: slide 'bb' is not among the 2 slides; known: a, b; did you mean 'b'",
        ),
        (["slide_id,label", "a,0", "a,1"], "line 3: slide 'a' is listed twice"),
        (["slide_id,klass", "a,0"], "column 'label' is missing; it has 'slide_id', 'klass'"),
        (["name,label", "a,0"], "column 'slide_id' .* is missing"),
        (["slide_id,label,split", "a,0,all"], "split 'all'"),
        (["slide_id,label", "a,=1"], "line 2: label '=1' begins as a formula"),
    ],
)
def test_faults_of_a_label_table(folder, tmp_path, lines, message):
    with pytest.raises(UserError, match=message):
        with_labels(list_slides(folder), write(tmp_path / "labels.csv", *lines))


@pytest.mark.parametrize(
    ("listed", "found"), [("P0.3", None), ("P0", "P0"), ("P0.svs", "P0"), ("P0.h5", "P0"), ("P0.3.svs", None)]
)
def test_only_suffixes_of_slides_and_features_are_cut_off_an_id(tmp_path, listed, found):
    path = write(tmp_path / "labels.csv", "slide_id,label", f"{listed},1")
    if found is None:
        with pytest.raises(UserError, match=rf"line 2: slide '{listed}' is not among"):
            read_labels(path, ["P0"], "slides")
    else:
        assert read_labels(path, ["P0"], "slides")["slide_id"].tolist() == [found]


def test_an_id_with_a_dot_is_found_as_it_is(tmp_path):
    path = write(tmp_path / "labels.csv", "slide_id,label", "P0.3,1", "P0.4.svs,0")
    assert read_labels(path, ["P0.3", "P0.4", "P0"], "slides")["slide_id"].tolist() == ["P0.3", "P0.4"]


def test_further_columns_of_lists_and_labels_are_passed_on_and_those_of_a_manifest_are_not(folder, tmp_path):
    path = write(folder / "list.csv", "slide_path,stage,feature_path", "b.svs,III,b.h5", "deep/c.svs,,c.h5")
    labels = write(tmp_path / "labels.csv", "slide_id,label,scanner", "b,1,XR", "c,0,")
    assert [entry.further for entry in list_slides(path)] == [{"stage": "III"}, {}]
    labelled = with_labels(list_slides(path), labels)
    assert [entry.further for entry in labelled] == [{"stage": "III", "scanner": "XR"}, {}]
