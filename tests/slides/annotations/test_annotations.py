"""ASAP XML, QuPath GeoJSON and label masks to tumour area fractions; damaged and hostile files."""

import json
import warnings

import numpy as np
import pytest
import shapely
from PIL import Image

from kd_mil.core.errors import UserError
from kd_mil.slides.annotations.annotations import (
    AnnotationSettings,
    PolygonAnnotation,
    read_annotation,
    tumour_fraction,
)
from kd_mil.slides.annotations.outlines import areas_of
from kd_mil.slides.annotations.subdivision import MAX_VERTICES, subdivided
from kd_mil.slides.formats.reader import open_slide

SQUARE = [(100, 100), (300, 100), (300, 300), (100, 300)]
HOLE = [(150, 150), (250, 150), (250, 250), (150, 250)]
BOW_TIE = [(0, 0), (100, 100), (100, 0), (0, 100)]


@pytest.fixture
def slide(tmp_path):
    Image.new("RGB", (400, 400)).save(tmp_path / "slide.png")
    return open_slide(tmp_path / "slide.png", mpp=0.5)


def asap(path, *annotations):
    """An ASAP file of (group, points)."""
    parts = [
        f'<Annotation Name="a{number}" Type="Polygon" PartOfGroup="{group}" Color="#F4FA58"><Coordinates>'
        + "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}" />' for i, (x, y) in enumerate(points))
        + "</Coordinates></Annotation>"
        for number, (group, points) in enumerate(annotations)
    ]
    body = f"<Annotations>{''.join(parts)}</Annotations><AnnotationGroups />"
    path.write_text(f'<?xml version="1.0"?>\n<ASAP_Annotations>{body}</ASAP_Annotations>')
    return path


def feature(points, name="Tumor", kind="Polygon", **properties):
    ring = [list(point) for point in [*points, points[0]]]
    coordinates = {"Polygon": [ring], "MultiPolygon": [[ring]], "LineString": ring}[kind]
    properties = {"classification": {"name": name, "color": [200, 0, 0]}, **properties}
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


def geojson(path, content):
    path.write_text(json.dumps(content))
    return path


def area(annotation) -> float:
    return float(shapely.area(annotation.polygons).sum())


def test_fractions_by_hand(tmp_path, slide):
    """A square of 200 with a hole of 100: tiles of 100 hold nothing, a quarter less, or all but a quarter of it."""
    annotation = read_annotation(asap(tmp_path / "a.xml", ("Tumor", SQUARE), ("Exclusion", HOLE)), slide)
    coords = np.array([[0, 0], [100, 100], [200, 200], [50, 100], [300, 300], [150, 150]])
    fractions = tumour_fraction(annotation, coords, 100)
    assert fractions.dtype == np.float32
    assert fractions.tolist() == pytest.approx([0, 0.75, 0.75, 0.5, 0, 0])


@pytest.mark.parametrize("group", ["_0", "_1", "Tumor", "tumor", "metastases"])
def test_positive_groups(tmp_path, slide, group):
    assert area(read_annotation(asap(tmp_path / "a.xml", (group, SQUARE)), slide)) == 40_000


@pytest.mark.parametrize("group", ["_2", "Exclusion", "None", "normal"])
def test_subtracted_groups(tmp_path, slide, group):
    path = asap(tmp_path / "a.xml", ("_0", SQUARE), (group, HOLE))
    assert area(read_annotation(path, slide)) == 30_000


def test_overlapping_outlines_count_once(tmp_path, slide):
    shifted = [(x + 100, y) for x, y in SQUARE]
    annotation = read_annotation(asap(tmp_path / "a.xml", ("_0", SQUARE), ("_1", shifted)), slide)
    assert area(annotation) == 60_000
    assert tumour_fraction(annotation, np.array([[200, 100]]), 100).item() == 1


def test_groups_are_configurable_and_unknown_ones_are_a_warning(tmp_path, slide):
    path = asap(tmp_path / "a.xml", ("Krebs", SQUARE))
    with pytest.warns(UserWarning, match=r"no tumour: its classes are \['Krebs'\]"):
        assert area(read_annotation(path, slide)) == 0
    assert area(read_annotation(path, slide, AnnotationSettings(positive_groups=["krebs"]))) == 40_000


def test_dots_and_empty_files_hold_no_tumour(tmp_path, slide):
    annotation = read_annotation(asap(tmp_path / "a.xml", ("_0", SQUARE[:2]), ("_0", [])), slide)
    assert tumour_fraction(annotation, np.array([[100, 100]]), 100).tolist() == [0]
    assert tumour_fraction(annotation, np.empty((0, 2), np.int64), 100).shape == (0,)


def test_point_sets_enclose_nothing(tmp_path, slide):
    path = asap(tmp_path / "a.xml", ("_0", SQUARE), ("_0", HOLE))
    path.write_text(path.read_text().replace('Name="a0" Type="Polygon"', 'Name="a0" Type="PointSet"'))
    assert area(read_annotation(path, slide)) == 10_000


SPIKE = [(0, 0), (100, 0), (100, 100), (50, 100), (50, 200), (50, 100), (0, 100)]
LINE = [(10, 10), (300, 10), (20, 10)]


def test_spikes_and_slips_of_the_hand(tmp_path, slide):
    """Outlines that enclose a line as well, or nothing but one, beside others, cut out and cut from."""
    groups = [("_0", SPIKE), ("_0", LINE), ("_0", SQUARE), ("_2", SPIKE), ("_2", LINE), ("_2", HOLE)]
    with pytest.warns(UserWarning, match="4 outlines cross themselves"):
        annotation = read_annotation(asap(tmp_path / "a.xml", *groups), slide)
    assert area(annotation) == 30_000
    assert tumour_fraction(annotation, np.array([[0, 0], [200, 200]]), 100).tolist() == [0, 0.75]
    content = [feature(SPIKE), feature(LINE), feature(SQUARE)]
    with pytest.warns(UserWarning, match="2 outlines cross themselves"):
        assert area(read_annotation(geojson(tmp_path / "a.geojson", content), slide)) == 50_000


def test_forms_of_geojson(tmp_path, slide):
    one = feature(SQUARE)
    for content in (one, [one], {"type": "FeatureCollection", "features": [one]}, feature(SQUARE, kind="MultiPolygon")):
        assert area(read_annotation(geojson(tmp_path / "a.geojson", content), slide)) == 40_000


@pytest.mark.parametrize(
    ("classification", "positive"),
    [
        ({"name": "Tumor", "colorRGB": -3670016}, True),
        ({"name": "tumour"}, True),
        ("Tumor", True),
        ({"names": ["Tumor"], "color": [1, 2, 3]}, True),
        ({"name": "Stroma"}, False),
        ({"names": ["Tumor", "Positive"]}, False),
        (None, False),
        ({"name": None}, False),
        ({"names": []}, False),
        ({"colorRGB": -3670016}, False),
    ],
)
def test_qupath_classes(tmp_path, slide, classification, positive):
    content = feature(SQUARE)
    content["properties"]["classification"] = classification
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert (area(read_annotation(geojson(tmp_path / "a.json", content), slide)) > 0) == positive


def test_predictions_and_lines_are_no_annotations(tmp_path, slide):
    content = [
        feature(SQUARE, objectType="annotation"),
        feature(HOLE, objectType="detection"),
        feature(HOLE, kind="LineString"),
    ]
    with pytest.warns(UserWarning, match="no annotated areas were left out: 1 LineString, 1 detection"):
        assert area(read_annotation(geojson(tmp_path / "a.geojson", content), slide)) == 40_000


@pytest.mark.parametrize(
    "written",
    [
        {"properties": {"objectType": "detection"}},
        {"properties": {"objectType": "cell"}},
        {"properties": {"object_type": "detection"}},
        {"properties": {"object_type": "tma_core"}},
        {"properties": {"object_type": "annotation"}, "id": "PathTileObject"},
        {"id": "PathDetectionObject"},
        {"id": "PathCellObject"},
        {"id": "TMACoreObject"},
    ],
)
def test_what_a_program_predicted_is_left_out_wherever_its_kind_stands(tmp_path, slide, written):
    content = feature(SQUARE) | {"id": written.get("id", "1")}
    content["properties"] |= written.get("properties", {})
    with pytest.warns(UserWarning, match="no annotated areas were left out: 1 "):
        assert area(read_annotation(geojson(tmp_path / "a.geojson", content), slide)) == 0


@pytest.mark.parametrize("identity", ["PathAnnotationObject", "1", "c1f0a8f4-7f7f-4f2b-9d1f-0a4b5f5b0f11", None])
def test_drawn_objects_of_all_versions_count(tmp_path, slide, identity):
    content = feature(SQUARE, object_type="annotation") | {"id": identity}
    assert area(read_annotation(geojson(tmp_path / "a.geojson", content), slide)) == 40_000


def test_what_encloses_nothing_is_left_out_and_named(tmp_path, slide):
    """No geometry, a point, a shape of tomorrow; a collection's polygon counts, its line does not."""
    square, hole = feature(SQUARE)["geometry"], feature(HOLE, kind="LineString")["geometry"]
    others = [{"type": "Point", "coordinates": [1, 2]}, {"type": "Spline", "knots": []}]
    content = [feature(SQUARE) | {"geometry": None}, *(feature(SQUARE) | {"geometry": one} for one in others)]
    content.append(feature(SQUARE) | {"geometry": {"type": "GeometryCollection", "geometries": [hole, square, None]}})
    content += [{"type": "Feature", "properties": {}}, feature(SQUARE) | {"geometry": {**square, "coordinates": []}}]
    expected = "left out: 1 LineString, 1 Point, 1 Spline, 3 without geometry, 1 without points"
    with pytest.warns(UserWarning, match=expected):
        assert area(read_annotation(geojson(tmp_path / "a.geojson", content), slide)) == 40_000


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_byte_order_marks(tmp_path, slide, encoding):
    (tmp_path / "a.geojson").write_text(json.dumps([feature(SQUARE)]), encoding=encoding)
    assert area(read_annotation(tmp_path / "a.geojson", slide)) == 40_000


def test_a_bare_geometry_has_no_class(tmp_path, slide):
    path = geojson(tmp_path / "a.geojson", feature(SQUARE)["geometry"])
    assert area(read_annotation(path, slide, AnnotationSettings(positive_classes=["None"]))) == 40_000


def vertices(points):
    return "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in points)


def imagescope(path, *layers):
    """An ImageScope file of (attributes of the layer, [(attributes of the region, points), ...])."""
    text = "".join(
        f"<Annotation {attributes}><Regions>"
        + "".join(f"<Region {kind}><Vertices>{vertices(points)}</Vertices></Region>" for kind, points in regions)
        + "</Regions></Annotation>"
        for attributes, regions in layers
    )
    path.write_text(f'<?xml version="1.0"?><Annotations MicronsPerPixel="0.5">{text}</Annotations>')
    return path


def test_imagescope_layers_less_their_negative_regions(tmp_path, slide):
    tumour = [('Type="0"', SQUARE), ('Type="0" NegativeROA="1"', HOLE)]
    path = imagescope(tmp_path / "a.xml", ('Name="Tumor"', tumour), ('Name="Stroma"', [('Type="0"', BOW_TIE)]))
    with pytest.warns(UserWarning, match="1 outlines cross themselves"):
        annotation = read_annotation(path, slide)
    assert area(annotation) == 30_000
    assert tumour_fraction(annotation, np.array([[100, 100], [150, 150]]), 100).tolist() == pytest.approx([0.75, 0])


def test_imagescope_rectangles_ellipses_and_arrows(tmp_path, slide):
    """An ellipse of half axes 100 and 50 is given by two corners; an arrow encloses nothing."""
    regions = [('Type="2"', [(100, 100), (300, 200)]), ('Type="3"', [(0, 0), (9, 0), (9, 9)])]
    annotation = read_annotation(imagescope(tmp_path / "a.xml", ('Name="tumour"', regions)), slide)
    assert area(annotation) == pytest.approx(np.pi * 100 * 50, rel=1e-3)
    assert shapely.total_bounds(annotation.polygons).tolist() == pytest.approx([100, 100, 300, 200])


def test_imagescope_layers_are_named_by_description_too_and_nameless_ones_are_a_warning(tmp_path, slide):
    path = imagescope(tmp_path / "a.xml", ('Name=""', [("", SQUARE)]))
    with pytest.warns(UserWarning, match=r"no tumour: its classes are \['None'\]"):
        assert area(read_annotation(path, slide)) == 0
    described = '<Attributes><Attribute Name="Description" Value="Tumor"/></Attributes><Regions>'
    path.write_text(path.read_text().replace("<Regions>", described))
    assert area(read_annotation(path, slide)) == 40_000


NDPA = """<?xml version="1.0" encoding="utf-8"?><annotations><ndpviewstate id="1"><title>{title}</title>
<coordformat>{unit}</coordformat><lens>1</lens><annotation type="{kind}">
<measuretype>0</measuretype><closed>{closed}</closed>{inside}</annotation></ndpviewstate></annotations>"""


def ndpa(path, inside, title="Tumor", kind="freehand", closed=1, unit="nanometers"):
    path.write_text(NDPA.format(inside=inside, title=title, kind=kind, closed=closed, unit=unit))
    return path


@pytest.fixture
def hamamatsu(slide):
    """400 x 400 pixels of 500 x 250 nm whose middle lies at (-1 mm, 2 mm) of the glass's."""
    slide.properties = {
        "hamamatsu.XOffsetFromSlideCentre": "-1000000",
        "hamamatsu.YOffsetFromSlideCentre": "2000000",
        "openslide.mpp-x": "0.5",
        "openslide.mpp-y": "0.25",
    }
    return slide


def nanometres(points):
    """Pixel (200, 200) is the middle."""
    pairs = [(-1_000_000 + (x - 200) * 500, 2_000_000 + (y - 200) * 250) for x, y in points]
    return f"<pointlist>{''.join(f'<point><x>{x}</x><y>{y}</y></point>' for x, y in pairs)}</pointlist>"


def test_ndpa_counts_nanometres_from_the_middle_of_the_glass(tmp_path, hamamatsu):
    hamamatsu.mpp = 1.0  # an override changes what pixels measure, not where outlines lie
    annotation = read_annotation(ndpa(tmp_path / "a.ndpi.ndpa", nanometres(SQUARE)), hamamatsu)
    assert shapely.total_bounds(annotation.polygons).tolist() == [100, 100, 300, 300]
    circle = "<x>-1000000</x><y>2000000</y><radius>25000</radius>"
    annotation = read_annotation(ndpa(tmp_path / "c.ndpa", circle, kind="circle"), hamamatsu)
    assert shapely.total_bounds(annotation.polygons).tolist() == pytest.approx([150, 100, 250, 300])


def test_ndpa_lines_and_other_classes_are_no_tumour(tmp_path, hamamatsu):
    assert area(read_annotation(ndpa(tmp_path / "a.ndpa", nanometres(SQUARE), closed=0), hamamatsu)) == 0
    assert area(read_annotation(ndpa(tmp_path / "a.ndpa", nanometres(SQUARE), kind="linearmeasure"), hamamatsu)) == 0
    with pytest.warns(UserWarning, match=r"its classes are \['Stroma'\]"):
        assert area(read_annotation(ndpa(tmp_path / "a.ndpa", nanometres(SQUARE), title="Stroma"), hamamatsu)) == 0


def test_ndpa_of_another_slide_or_unit_is_refused(tmp_path, slide, hamamatsu):
    with pytest.raises(UserError, match="coordinates in 'pixels'"):
        read_annotation(ndpa(tmp_path / "a.ndpa", nanometres(SQUARE), unit="pixels"), hamamatsu)
    del hamamatsu.properties["hamamatsu.XOffsetFromSlideCentre"]
    with pytest.raises(UserError, match=r"does not state hamamatsu\.XOffset"):
        read_annotation(ndpa(tmp_path / "a.ndpa", nanometres(SQUARE)), hamamatsu)


def test_nothing_beyond_the_slide_is_tumour(tmp_path, slide):
    """A tile of 100 whose right half lies beyond the slide of 400: half of it can be tumour at most."""
    coords = np.array([[350, 100], [350, 350]])
    outline = feature([(200, 0), (900, 0), (900, 900), (200, 900)])
    annotation = read_annotation(geojson(tmp_path / "a.geojson", outline), slide)
    assert tumour_fraction(annotation, coords, 100).tolist() == pytest.approx([0.5, 0.25])
    Image.new("L", (6, 6), 255).save(tmp_path / "mask.png")
    mask = read_annotation(tmp_path / "mask.png", slide, AnnotationSettings(mask_mpp=50.0))
    assert tumour_fraction(mask, coords, 100).tolist() == pytest.approx([0.5, 0.25])


def test_qupath_counts_from_the_corner_of_the_bounds(tmp_path, slide):
    slide.bounds = (30, 20, 300, 300)
    path = geojson(tmp_path / "a.geojson", feature(SQUARE))
    assert shapely.total_bounds(read_annotation(path, slide).polygons).tolist() == [130, 120, 330, 320]
    whole = read_annotation(path, slide, AnnotationSettings(geojson_in_bounds=False))
    assert shapely.total_bounds(whole.polygons).tolist() == [100, 100, 300, 300]


def test_self_intersecting_outlines_are_repaired(tmp_path, slide):
    """A bow tie over a square of 100: two triangles with half of its area."""
    for path in (asap(tmp_path / "a.xml", ("_0", BOW_TIE)), geojson(tmp_path / "a.geojson", feature(BOW_TIE))):
        with pytest.warns(UserWarning, match="1 outlines cross themselves"):
            annotation = read_annotation(path, slide)
        assert area(annotation) == pytest.approx(5000)
        assert tumour_fraction(annotation, np.array([[0, 0]]), 100).item() == pytest.approx(0.5)


def test_subdividing_leaves_every_fraction_as_it_was():
    angle = np.linspace(0, 2 * np.pi, 3000, endpoint=False)
    radius = 900 * (1 + 0.3 * np.sin(7 * angle) + 0.05 * np.sin(211 * angle))
    outline = shapely.Polygon(np.stack([1000 + radius * np.cos(angle), 1000 + radius * np.sin(angle)], axis=1))
    whole = areas_of(outline.difference(shapely.box(900, 900, 1100, 1050)))
    parts = subdivided(whole)
    assert shapely.get_num_coordinates(parts).max() <= MAX_VERTICES < shapely.get_num_coordinates(whole).max()
    coords = np.random.default_rng(0).integers(-100, 2000, size=(300, 2))
    tiles = shapely.box(*coords.T, *(coords + 64).T)
    expected = shapely.area(shapely.intersection(tiles, whole[0])) / 64**2
    assert 20 < (expected == 1).sum() < 280
    np.testing.assert_allclose(tumour_fraction(PolygonAnnotation(whole), coords, 64), expected, atol=1e-6)
    np.testing.assert_allclose(tumour_fraction(PolygonAnnotation(parts), coords, 64), expected, atol=1e-6)


def write_mask(path, width=100, height=100, value=1):
    """Tumour in the columns from a quarter to three quarters; a label 9 in the last row."""
    labels = np.zeros((height, width), dtype=np.uint8)
    labels[:, width // 4 : 3 * width // 4] = value
    labels[-1] = 9
    Image.fromarray(labels).save(path)
    return path


def test_label_mask_spans_the_slide(tmp_path, slide):
    annotation = read_annotation(write_mask(tmp_path / "mask.png"), slide, AnnotationSettings(mask_values=[1]))
    assert annotation.downsample == 4
    fractions = tumour_fraction(annotation, np.array([[0, 0], [100, 0], [50, 0], [98, 10], [100, 350]]), 50)
    assert fractions.tolist() == pytest.approx([0, 1, 0, 48 / 50, 46 / 50])


def test_label_mask_with_its_own_resolution(tmp_path, slide):
    """Columns 25 to 75 of 2 um per pixel on a slide of 0.5: level-0 columns 100 to 300."""
    annotation = read_annotation(
        write_mask(tmp_path / "mask.tif", 100, 40, value=255), slide, AnnotationSettings(mask_mpp=2.0)
    )
    assert tumour_fraction(annotation, np.array([[80, 0], [100, 80], [280, 0]]), 40).tolist() == [0.5, 1, 0.5]


def test_label_mask_of_another_shape(tmp_path, slide):
    with pytest.raises(UserError, match="mask_mpp=-1: must be above 0"):
        AnnotationSettings(mask_mpp=-1)
    with pytest.raises(UserError, match=r"mask\.png' \(100 x 90\) has not the shape of slide 'slide' \(400 x 400\)"):
        read_annotation(write_mask(tmp_path / "mask.png", 100, 90), slide)


BOMB = """<?xml version="1.0"?><!DOCTYPE bomb [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<ASAP_Annotations><Annotations><Annotation Name="&b;"/></Annotations></ASAP_Annotations>"""
NO_NUMBER = '<ASAP_Annotations><Annotations><Annotation Name="x" PartOfGroup="_0"><Coordinates><Coordinate X="{}" Y="1"/></Coordinates></Annotation></Annotations></ASAP_Annotations>'  # noqa: E501


IMAGESCOPE = '<Annotations><Annotation Name="Tumor"><Regions><Region Type="0"><Vertices><Vertex X="{}" Y="1"/></Vertices></Region></Regions></Annotation></Annotations>'  # noqa: E501


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bomb.xml", BOMB, "defines entities"),
        ("cut.xml", "<ASAP_Annotations><Annotations>", "not safe, well-formed XML"),
        ("empty.xml", "", "not safe, well-formed XML"),
        ("letters.xml", '<?xml version="1.0" encoding="gb2312"?><ASAP_Annotations/>', "not safe, well-formed XML"),
        ("made_up.xml", '<?xml version="1.0" encoding="klingon"?><ASAP_Annotations/>', "not safe, well-formed XML"),
        ("other.xml", "<Outlines><Annotation/></Outlines>", "neither ASAP's nor ImageScope's: .*'Outlines'"),
        ("asap.xml", "<ASAP_Annotations/>", "neither ASAP's nor ImageScope's"),
        ("scope.xml", IMAGESCOPE.format("left"), r"layer 1 \(Tumor\)' has a point without a finite X and Y"),
        ("word.xml", NO_NUMBER.format("left"), "'x' has a point without a finite X and Y"),
        ("nan.xml", NO_NUMBER.format("nan"), "'x' has a point without a finite X and Y"),
        ("cut.geojson", '{"type": "FeatureColl', "is not JSON"),
        ("binary.geojson", "\0\1", "is not JSON"),
        ("other.json", '{"slides": []}', "no GeoJSON"),
        ("number.json", "3", "no GeoJSON"),
        ("features.json", '{"type": "FeatureCollection"}', "no GeoJSON"),
        ("item.json", "[3]", "feature 0 is no GeoJSON feature"),
        ("bare.json", '[{"kind": "area"}]', "feature 0 is no GeoJSON feature"),
        (
            "far.geojson",
            '{"type": "Polygon", "coordinates": [[[0, 0], [1e300, 0], [1e300, 1e300], [0, 0]]]}',
            "a coordinate is no number, or lies beyond any slide",
        ),
        ("deep.json", '[{"geometry": {"type": "Polygon", "coordinates": ' + "[" * 900 + "]" * 900 + "}}]", "feature 0"),
        ("deeper.json", "[" * 100_000, "is not JSON"),
        ("short.json", json.dumps([feature(SQUARE[:1])]), "feature 0 is no GeoJSON feature"),
        ("word.json", json.dumps([{"geometry": {"type": "Polygon", "coordinates": ""}}]), "feature 0 is no GeoJSON"),
        ("huge.json", json.dumps([feature([(0, 0), (1, 10**400), (1, 1)])]), "feature 0 is no GeoJSON feature"),
        ("nan.json", json.dumps([feature([(0, 0), (1, float("nan")), (1, 1)])]), "feature 0 is no GeoJSON feature"),
        ("text.png", "hello", "not a readable image"),
        ("outline.txt", "hello", "neither .xml"),
    ],
)
def test_bad_files_are_one_line(tmp_path, slide, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message) as failure:
        read_annotation(tmp_path / name, slide)
    assert name in str(failure.value)
    assert "\n" not in str(failure.value)


def test_missing_file_names_the_slide(tmp_path, slide):
    with pytest.raises(UserError, match=r"none\.xml' of slide 'slide' does not exist"):
        read_annotation(tmp_path / "none.xml", slide)
