"""QuPath GeoJSON: kinds of objects, classes and geometries."""

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.campaign.cases import Case, Check
from tests.campaign.checks import done, either, everything, listed, warned
from tests.campaign.inputs.annotations import HOLE, HOLED, RIGHT, SQUARE, annotation
from tests.campaign.inputs.pictures import TILES
from tests.campaign.inputs.vendors import leica


def feature(rings: Any = None, kind: str = "Polygon", name: Any = "Tumor", **properties: Any) -> dict[str, Any]:
    """One QuPath object, an annotated tumour by default."""
    geometry = {"type": kind, "coordinates": [SQUARE] if rings is None else rings}
    classes = {"classification": {"name": name, "color": [200, 0, 0]}} if name else {}
    return {
        "type": "Feature",
        "id": "00000000-0000-0000-0000-000000000001",
        "geometry": geometry,
        "properties": {"objectType": "annotation"} | classes | properties,
    }


def collection(*features: Any, **more: Any) -> str:
    return json.dumps({"type": "FeatureCollection", "features": list(features), **more})


def without(tumour: dict[str, Any], *names: str) -> dict[str, Any]:
    return tumour | {"properties": {key: value for key, value in tumour["properties"].items() if key not in names}}


def cases() -> Iterator[Case]:
    yield from qupath_objects()
    yield from geometries()


def qupath_objects() -> Iterator[Case]:
    """What was predicted or measured is not drawn, wherever its kind stands."""
    kind = "predicted objects"

    def none(name: str) -> Check:
        return everything(done(name, tiles=TILES, tumour=0.0), warned(name, "annotated areas|no tumour"))

    plain = without(feature(), "objectType")
    for word in ("detection", "cell", "tile", "tmaCore", "root"):
        yield annotation(f"object_type_{word}", kind, collection(feature(objectType=word)), none(f"object_type_{word}"))
        name = f"object_type03_{word}"
        yield annotation(name, kind, collection(without(feature(object_type=word), "objectType")), none(name))
    for word in ("PathDetectionObject", "PathCellObject", "PathTileObject", "TMACoreObject"):
        yield annotation(f"id_{word}", kind, collection(plain | {"id": word}), none(f"id_{word}"))
    yield annotation("id_PathAnnotationObject", kind, collection(plain | {"id": "PathAnnotationObject"}))
    yield annotation(
        "object_type03_annotation", kind, collection(without(feature(object_type="annotation"), "objectType"))
    )
    yield annotation("object_type_absent", kind, collection(plain))
    yield annotation(
        "predicted_beside_drawn",
        kind,
        collection(
            feature(), feature([[[512, 512], [768, 512], [768, 768], [512, 768], [512, 512]]], objectType="detection")
        ),
        everything(done("predicted_beside_drawn", tumour=RIGHT), warned("predicted_beside_drawn")),
    )
    for name, classification in (
        ("class_upper", {"name": "TUMOR"}),
        ("class_text", "Tumor"),
        ("class_names", {"names": ["Tumor"]}),
        ("class_java_colour", {"name": "Tumor", "colorRGB": -3670016}),
    ):
        yield annotation(name, "classes", collection(feature(classification=classification)))
    for name, classification in (
        ("class_null", None),
        ("class_other", {"name": "Stroma"}),
        ("class_ignored", {"name": "Ignore*"}),
        ("class_empty", {}),
        ("class_number", 5),
        ("class_list", ["Tumor"]),
    ):
        yield annotation(
            name,
            "classes",
            collection(feature(classification=classification)),
            either(
                everything(done(name, tumour=0.0), warned(name)),
                listed(name, "class|feature"),
                done(name, tumour=RIGHT) if name == "class_list" else listed(name, "class"),
            ),
        )
    yield annotation(
        "no_properties",
        "classes",
        collection({key: value for key, value in feature().items() if key != "properties"}),
        everything(done("no_properties", tumour=0.0), warned("no_properties")),
    )
    yield annotation(
        "null_properties",
        "classes",
        collection(feature() | {"properties": None}),
        everything(done("null_properties", tumour=0.0), warned("null_properties")),
    )


def geometries() -> Iterator[Case]:
    """Shapes that GeoJSON allows, and coordinates that no slide has."""
    kind = "geometries"
    nothing = {"type": "Feature", "geometry": None, "properties": {"objectType": "annotation"}}
    square = {"type": "Polygon", "coordinates": [SQUARE]}
    line = {"type": "LineString", "coordinates": SQUARE}
    for name, content in (
        ("null_geometry", collection(nothing, feature())),
        ("missing_geometry", collection({"type": "Feature", "properties": {}}, feature())),
        (
            "geometry_collection",
            collection(feature() | {"geometry": {"type": "GeometryCollection", "geometries": [square, line]}}),
        ),
        (
            "geometry_collections",
            collection(
                feature()
                | {
                    "geometry": {
                        "type": "GeometryCollection",
                        "geometries": [{"type": "GeometryCollection", "geometries": [square]}],
                    }
                }
            ),
        ),
        ("multi_polygon", collection(feature([[SQUARE]], "MultiPolygon"))),
        ("with_bom", "\ufeff" + collection(feature())),
        ("with_height", collection(feature([[[*point, 0.0] for point in SQUARE]]))),
        ("one_feature", json.dumps(feature())),
        ("feature_list", json.dumps([feature()])),
        (
            "foreign_members",
            collection(feature() | {"bbox": [0, 0, 1, 1], "x": {}}, crs={"type": "name"}, totalFeatures=1),
        ),
        ("counted_once", collection(feature(), feature())),
        ("clockwise", collection(feature([SQUARE[::-1]]))),
        ("repeated_points", collection(feature([[point for point in SQUARE for _ in range(3)]]))),
        ("many_points", collection(feature([_dense(20_000)]))),
        ("floats", collection(feature([[[float(x), float(y)] for x, y in SQUARE]]))),
        (
            "beyond_the_slide",
            collection(feature(), feature([[[5000, 5000], [6000, 5000], [6000, 6000], [5000, 5000]]])),
        ),
        ("line_beside", collection(feature(), feature(SQUARE, "LineString"))),
        ("point_beside", collection(feature(), feature([300, 300], "Point"))),
        ("json_suffix", collection(feature())),
    ):
        yield annotation(name, kind, content, suffix=".json" if name == "json_suffix" else ".geojson")
    yield annotation("hole", kind, collection(feature([SQUARE, HOLE])), tumour=HOLED)
    yield annotation(
        "bow_tie",
        kind,
        collection(feature([[[256, 256], [512, 512], [512, 256], [256, 512], [256, 256]]])),
        everything(done("bow_tie", tumour=8.0), warned("bow_tie")),
    )
    yield annotation(
        "unclosed",
        kind,
        collection(feature([SQUARE[:-1]])),
        either(done("unclosed", tumour=RIGHT), listed("unclosed", "ring|closed|feature 0")),
    )
    for name, rings in (("two_points", [SQUARE[:2]]), ("no_rings", []), ("empty_ring", [[]])):
        yield annotation(
            name,
            kind,
            collection(feature(), feature(rings)),
            either(everything(done(name, tumour=RIGHT), warned(name)), listed(name, "feature 1")),
        )
    for name, point in (
        ("text_points", ["a", "b"]),
        ("nan_points", [float("nan"), 300]),
        ("infinite_points", [float("inf"), 3]),
        ("null_points", [None, None]),
        ("one_number", [300]),
        ("object_points", {"x": 300, "y": 300}),
    ):
        yield annotation(
            name, kind, collection(feature([[*SQUARE[:3], point, SQUARE[0]]])), listed(name, "feature 0|coordinate")
        )
    yield annotation(
        "astronomic",
        kind,
        collection(feature([[[256, 256], [1e300, 256], [1e300, 1e300], [256, 256]]])),
        either(
            listed("astronomic", "feature 0|coordinate|slide"),
            done("astronomic", tumour=range(28, 37)),
            warned("astronomic"),
        ),
    )
    yield annotation("empty_collection", kind, collection(), done("empty_collection", tumour=0.0))
    yield annotation(
        "unknown_type",
        kind,
        collection(feature(), feature(SQUARE, "Circle")),
        either(
            everything(done("unknown_type", tumour=RIGHT), warned("unknown_type")), listed("unknown_type", "feature 1")
        ),
    )
    yield annotation(
        "geojson_in_bounds",
        "slides with bounds",
        collection(feature([[[512, 512], [1024, 512], [1024, 1024], [512, 1024], [512, 512]]])),
        slide=leica,
        slide_suffix=".scn",
        mpp=None,
    )


def _dense(points: int) -> list[list[float]]:
    side = np.linspace(256, 512, points // 4, endpoint=False)
    low, high = np.full_like(side, 256), np.full_like(side, 512)
    x, y = (
        np.concatenate([side, high, side[::-1] + side[1] - 256, low]),
        np.concatenate([low, side, high, side[::-1] + side[1] - 256]),
    )
    ring = np.stack([x, y], 1).tolist()
    return [*ring, ring[0]]
