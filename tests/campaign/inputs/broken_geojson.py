"""Files that are no JSON, no GeoJSON, or a trap for the parser."""

import json
from collections.abc import Iterator
from typing import Any

from tests.campaign.cases import Case
from tests.campaign.checks import done, either, listed
from tests.campaign.inputs.annotations import RIGHT, annotation
from tests.campaign.inputs.geojson import collection, feature


def cases() -> Iterator[Case]:
    """Files that are no JSON, no GeoJSON, or a trap for the parser."""
    kind, whole = "broken annotations", collection(feature())
    nested: Any = feature()
    deep = '{"type":"FeatureCollection","features":' + "[" * 900 + json.dumps(nested) + "]" * 900 + "}"
    for name, content in (
        ("nest_900", deep),
        ("nest_100000", "[" * 100_000 + "]" * 100_000),
        ("nest_objects", '{"a":' * 5000 + "1" + "}" * 5000),
        ("nest_properties", collection(feature(metadata="@")).replace('"@"', '{"a":' * 950 + "1" + "}" * 950)),
        ("nest_geometry", collection(feature("@")).replace('"@"', "[" * 950 + "]" * 950)),
        (
            "nest_collections",
            collection(feature() | {"geometry": "@"}).replace(
                '"@"',
                '{"type":"GeometryCollection","geometries":[' * 400 + json.dumps(feature()["geometry"]) + "]}" * 400,
            ),
        ),
        ("empty_geojson", ""),
        ("blank_geojson", " \n"),
        ("cut_geojson", whole[: len(whole) // 2]),
        ("trailing_comma", whole[:-2] + ",]}"),
        ("two_documents", whole + whole),
        ("json_text", '"FeatureCollection"'),
        ("json_null", "null"),
        ("json_number", "5"),
        ("features_null", '{"type":"FeatureCollection","features":null}'),
        ("features_object", '{"type":"FeatureCollection","features":{"0":1}}'),
        ("features_numbers", '{"type":"FeatureCollection","features":[1,2]}'),
        ("features_null_inside", '{"type":"FeatureCollection","features":[null]}'),
        ("topojson", '{"type":"Topology","objects":{},"arcs":[]}'),
        ("coco", '{"images":[],"annotations":[{"segmentation":[[1,2,3,4,5,6]]}]}'),
        ("html_geojson", "<!DOCTYPE html><html></html>"),
        ("binary_geojson", bytes(range(256)) * 10),
        (
            "long_number",
            collection(feature([[[256, 256], ["@", 256], [512, 512], [256, 256]]])).replace('"@"', "9" * 5000),
        ),
    ):
        check = listed(name, f"{name}|annotation|feature")
        if name in ("nest_properties", "nest_collections"):
            check = either(check, done(name, tumour=RIGHT))
        yield annotation(name, kind, content, check)
    yield annotation(
        "utf16_geojson",
        kind,
        whole.encode("utf-16"),
        either(done("utf16_geojson", tumour=RIGHT), listed("utf16_geojson", "UTF-8|JSON")),
    )
    yield annotation(
        "latin1_geojson",
        kind,
        collection(feature(note="@")).replace("@", "é").encode("latin-1"),
        either(done("latin1_geojson", tumour=RIGHT), listed("latin1_geojson", "UTF-8|JSON")),
    )
    yield annotation(
        "gzipped", kind, b"\x1f\x8b\x08\0\0\0\0\0\0\0", listed("gzipped", "annotation"), suffix=".geojson.gz"
    )
