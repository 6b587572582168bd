import pytest

from kd_mil.core.errors import UserError
from kd_mil.data.features.manifest import read_manifest


@pytest.fixture
def write(tmp_path):
    """Writes a manifest beside the empty feature files a.h5, b.h5 and c.h5."""
    (tmp_path / "features").mkdir()
    for name in "abc":
        (tmp_path / "features" / f"{name}.h5").touch()

    def manifest(*lines, header="slide_id,label,feature_path"):
        (tmp_path / "slides.csv").write_text("\n".join([header, *lines]))
        return tmp_path / "slides.csv"

    return manifest


def test_a_full_manifest(write, tmp_path):
    header = "slide_id,case_id,label,split,fold,feature_path,scanner"
    path = write("a,p1,tumour,train,0,features/a.h5,x", " b , p1 ,normal,val,0,./features/b.h5,", "", header=header)
    manifest = read_manifest(path, ["normal", "tumour"])
    assert manifest.slide_ids == ["a", "b"]
    assert manifest.case_ids == ["p1", "p1"]
    assert manifest.labels.tolist() == [1, 0]
    assert manifest.class_names == ("normal", "tumour")
    assert manifest.splits == ["train", "val"]
    assert manifest.folds == [0, 0]
    assert manifest.feature_paths == [tmp_path / "features" / "a.h5", tmp_path / "features" / "b.h5"]


def test_the_least_a_manifest_needs(write):
    manifest = read_manifest(write("a,1,features/a.h5", "b,0,features/b.h5", "c,1,features/c.h5"))
    assert manifest.labels.tolist() == [1, 0, 1]
    assert manifest.class_names == ("0", "1")
    assert manifest.case_ids is None
    assert manifest.splits == manifest.folds == [None] * 3


def test_several_names_may_share_a_class(write):
    path = write("a,benign,features/a.h5", "b,normal,features/b.h5", "c,tumour,features/c.h5")
    manifest = read_manifest(path, {"normal": 0, "benign": 0, "tumour": 1})
    assert manifest.labels.tolist() == [0, 0, 1]
    assert manifest.class_names == ("normal+benign", "tumour")


def test_whole_numbers_of_pandas_are_whole(write):
    """A column with an empty cell is one of floats: 0.0, 1.0."""
    assert read_manifest(write("a,1.0,features/a.h5", "b,0.0,features/b.h5")).labels.tolist() == [1, 0]
    assert read_manifest(write("a,1,features/a.h5", "b,0.0,features/b.h5")).class_names == ("0", "1")
    assert read_manifest(write("a,1.0,features/a.h5", "b,0,features/b.h5"), ["0", "1"]).labels.tolist() == [1, 0]
    with pytest.raises(UserError, match="line 3: label is empty"):
        read_manifest(write("a,1.0,features/a.h5", "b,,features/b.h5", "c,0.0,features/c.h5"))
    with pytest.raises(UserError, match=r"line 4: label '0.5' is outside the classes; known: 0, 1"):
        read_manifest(write("a,1.0,features/a.h5", "b,0.0,features/b.h5", "c,0.5,features/c.h5"))


def test_only_known_suffixes_are_cut_off_ids(write, tmp_path):
    for name in ("P0", "P1.3"):
        (tmp_path / "features" / f"{name}.pt").touch()
    labels = tmp_path / "labels.csv"
    labels.write_text("slide_id,label\nP0.svs,0\nP1.3.h5,1\n")
    assert read_manifest(tmp_path / "features", labels=labels).slide_ids == ["P0", "P1.3"]
    labels.write_text("slide_id,label\nP1.3,1\nP0.3,0\n")
    with pytest.raises(UserError, match=r"line 3: slide 'P0.3' is not among"):
        read_manifest(tmp_path / "features", labels=labels)


def test_slides_may_look_like_numbers(write):
    assert read_manifest(write("007,0,features/a.h5", "NA,1,features/b.h5")).slide_ids == ["007", "NA"]


def test_relative_paths_start_where_the_user_says(write, tmp_path):
    path = write("a,0,a.h5", "b,1,b.h5")
    assert read_manifest(path, root=tmp_path / "features").feature_paths[1] == tmp_path / "features" / "b.h5"


def test_absolute_paths_may_lead_anywhere(write, tmp_path):
    outside = tmp_path.parent / "outside.h5"
    outside.touch()
    assert read_manifest(write(f"a,0,{outside}", "b,1,features/b.h5")).feature_paths[0] == outside


@pytest.mark.parametrize("name", ["../outside.h5", "features/../../outside.h5", "./../slides/a.h5"])
def test_relative_paths_must_not_escape(write, tmp_path, name):
    (tmp_path.parent / "outside.h5").touch()
    with pytest.raises(UserError, match=r"slides.csv, line 3: feature_path .* leaves .*: give an absolute path"):
        read_manifest(write("a,0,features/a.h5", f"b,1,{name}"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,0,features/a.h5", "a,1,features/b.h5"], "line 3: slide 'a' is listed twice"),
        (["a,0,features/a.h5", ",1,features/b.h5"], "line 3: slide_id is empty"),
        (["a,0,features/a.h5", "../x,1,features/b.h5"], "line 3: id '../x' cannot name a file"),
        (["a,0,features/a.h5", "b,=x,features/b.h5"], "line 3: label '=x' begins as a formula"),
        (["a,0,features/a.h5", "b,1,"], "line 3: feature_path is empty"),
        (["a,0,features/a.h5", "b,1"], "line 3: feature_path is empty"),
        (["a,0,features/a.h5", "", "b,1,features/z.h5"], "line 4: there is no feature file .*z.h5"),
        (["a,0,features/a.h5", "b,2,features/b.h5"], "labels 0, 2 are not the integers 0..C-1"),
        (["a,0,features/a.h5", "b,1?,features/b.h5"], r"line 3: label '1\?' is outside the classes; known: 0"),
        (["a,no,features/a.h5", "b,yes,features/b.h5"], r"labels no, yes are not .* data.classes=\[no,yes\]"),
        (["a,0,features/a.h5,more"], "not readable as a CSV"),
        ([], "the table has no lines below its header"),
    ],
)
def test_a_wrong_line_is_named(write, lines, message):
    with pytest.raises(UserError, match=f"slides.csv.*{message}"):
        read_manifest(write(*lines))


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("split", "training", "line 2: split 'training' is none of train, val, test"),
        ("label", "", "line 2: label is empty"),
        ("fold", "first", "line 2: fold 'first' is not a number"),
        ("fold", "-1", "line 2: fold '-1' is not a number"),
        ("case_id", "", "line 2: case_id is empty"),
    ],
)
def test_a_wrong_cell_is_named(write, column, value, message):
    row = {"slide_id": "a", "label": "0", "feature_path": "features/a.h5", column: value}
    path = write(",".join(row.values()), header=",".join(row))
    with pytest.raises(UserError, match=message):
        read_manifest(path)


def test_labels_outside_the_classes_are_named(write):
    path = write("a,normal,features/a.h5", "b,tumor,features/b.h5")
    with pytest.raises(UserError, match=r"line 3: label 'tumor' is outside .*; known: normal, tumour; did you mean"):
        read_manifest(path, ["normal", "tumour"])
    with pytest.raises(UserError, match=r"must be 0..C-1 without a gap"):
        read_manifest(path, {"normal": 0, "tumor": 2})


@pytest.mark.parametrize("column", ["slide_id", "label", "feature_path"])
def test_a_missing_column_is_named(write, column):
    header = "slide_id,label,feature_path".replace(column, "other")
    with pytest.raises(UserError, match=f"slides.csv: column '{column}' is missing; it has "):
        read_manifest(write("a,0,features/a.h5", header=header))


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.csv: not readable"):
        read_manifest(tmp_path / "nowhere.csv")
