"""Outlines in XML: ASAP, Aperio ImageScope, Hamamatsu."""

from collections.abc import Iterator
from typing import Any

from tests.campaign.cases import Case
from tests.campaign.checks import done, either, everything, listed, warned
from tests.campaign.inputs.annotations import HOLE, HOLED, RIGHT, SQUARE, annotation
from tests.campaign.inputs.pictures import tissue
from tests.campaign.inputs.vendors import ndpi


def asap(*polygons: str) -> str:
    return f'<?xml version="1.0"?><ASAP_Annotations><Annotations>{"".join(polygons)}</Annotations></ASAP_Annotations>'


def outline(ring: Any = SQUARE, group: str = "Tumor", kind: str = "Polygon") -> str:
    points = "".join(f'<Coordinate Order="{order}" X="{x}" Y="{y}"/>' for order, (x, y) in enumerate(ring[:-1]))
    head = f'<Annotation Name="A" Type="{kind}" PartOfGroup="{group}" Color="#F4FA58">'
    return f"{head}<Coordinates>{points}</Coordinates></Annotation>"


def cases() -> Iterator[Case]:
    yield from xml()
    yield from other_vendors()


def xml() -> Iterator[Case]:
    """ASAP's files, as Camelyon has them and as they come."""
    kind = "ASAP XML"
    shuffled = (
        outline().replace('Order="1"', 'Order="@"').replace('Order="2"', 'Order="1"').replace('Order="@"', 'Order="2"')
    )
    middle = shuffled.split("<Coordinate ")
    middle[2], middle[3] = middle[3], middle[2]
    bomb = (
        '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;&x;&x;">]>'
        + asap(outline()).split("?>", 1)[1]
    )
    steal = (
        '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
        + asap(outline(group="&x;")).split("?>", 1)[1]
    )
    for name, content, tumour in (
        ("asap_camelyon", asap(outline(group="_0"), outline(HOLE, "_2")), HOLED),
        ("asap_tumour_twice", asap(outline(), outline()), RIGHT),
        ("asap_spline", asap(outline(kind="Spline")), RIGHT),
        ("asap_rectangle", asap(outline(kind="Rectangle")), RIGHT),
        ("asap_dot_beside", asap(outline(), outline([[300, 300], [300, 300]], kind="Dot")), RIGHT),
        ("asap_two_points_beside", asap(outline(), outline(SQUARE[:3])), RIGHT),
        ("asap_exclusion", asap(outline(), outline(HOLE, "Exclusion")), HOLED),
        ("asap_empty", asap(), 0.0),
        ("asap_utf16", asap(outline()).replace('"1.0"', '"1.0" encoding="UTF-16"').encode("utf-16"), RIGHT),
        (
            "asap_latin1",
            asap(outline()).replace('"1.0"', '"1.0" encoding="ISO-8859-1"').replace('"A"', '"é"').encode("latin-1"),
            RIGHT,
        ),
        ("asap_bom", "\ufeff" + asap(outline()), RIGHT),
    ):
        yield annotation(name, kind, content, suffix=".xml", tumour=tumour)
    yield annotation(
        "asap_shuffled",
        kind,
        asap("<Coordinate ".join(middle)),
        either(done("asap_shuffled", tumour=RIGHT), warned("asap_shuffled"), listed("asap_shuffled", "order")),
        ".xml",
    )
    yield annotation(
        "asap_other_groups",
        kind,
        asap(outline(group="Stroma")),
        everything(done("asap_other_groups", tumour=0.0), warned("asap_other_groups", "no tumour")),
        ".xml",
    )
    for name, content in (
        ("asap_bomb", bomb),
        ("asap_steal", steal),
        ("asap_cut", asap(outline())[:150]),
        ("asap_comma", asap(outline().replace('X="256"', 'X="256,5"'))),
        ("asap_nan", asap(outline().replace('X="256"', 'X="nan"'))),
        ("asap_no_x", asap(outline().replace('X="256"', ""))),
        ("xml_other", "<svg/>"),
        ("xml_empty", ""),
        ("xml_html", "<html><body><br></body></html>"),
        ("xml_voc", "<annotation><object><bndbox><xmin>1</xmin></bndbox></object></annotation>"),
        ("xml_nested", "<a>" * 5000 + "</a>" * 5000),
    ):
        yield annotation(name, kind, content, listed(name, "annotation|xml"), ".xml")


def imagescope(*regions: str, layer: str = "Tumor") -> str:
    return (
        f'<?xml version="1.0"?><Annotations MicronsPerPixel="1.0"><Annotation Id="1" Name="{layer}" Visible="1" '
        f'LineColor="65280"><Attributes><Attribute Name="Description" Id="0" Value=""/></Attributes><Regions>'
        f"<RegionAttributeHeaders/>{''.join(regions)}</Regions><Plots/></Annotation></Annotations>"
    )


def region(ring: Any = SQUARE, negative: int = 0, kind: int = 0) -> str:
    points = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in ring)
    facts = f'Id="1" Type="{kind}" Text="" NegativeROA="{negative}" Selected="0"'
    return f"<Region {facts}><Attributes/><Vertices>{points}</Vertices></Region>"


def other_vendors() -> Iterator[Case]:
    """Aperio ImageScope and Hamamatsu."""
    kind = "ImageScope XML"
    for name, content, tumour in (
        ("imagescope_one", imagescope(region()), RIGHT),
        ("imagescope_unclosed", imagescope(region(SQUARE[:-1])), RIGHT),
        ("imagescope_negative", imagescope(region(), region(HOLE, 1)), HOLED),
        ("imagescope_rectangle", imagescope(region(SQUARE[:-1], kind=1)), RIGHT),
        ("imagescope_ruler_beside", imagescope(region(), region([[0, 0], [9, 9]], kind=4)), RIGHT),
        (
            "imagescope_empty_layer_beside",
            imagescope(region()).replace(
                "</Annotations>", '<Annotation Id="2" Name="x"><Regions/></Annotation></Annotations>'
            ),
            RIGHT,
        ),
    ):
        yield annotation(name, kind, content, suffix=".xml", tumour=tumour)
    yield annotation(
        "imagescope_other_layer",
        kind,
        imagescope(region(), layer="Necrosis"),
        either(
            everything(done("imagescope_other_layer", tumour=0.0), warned("imagescope_other_layer")),
            listed("imagescope_other_layer", "layer|class|name"),
        ),
        ".xml",
    )
    # Hamamatsu counts nm from the middle of the slide; the picture measures 1024 um.
    nanometres = [[x * 1000 - 512_000, y * 1000 - 512_000] for x, y in SQUARE[:-1]]
    points = "".join(f"<point><x>{x}</x><y>{y}</y></point>" for x, y in nanometres)
    view = (
        '<?xml version="1.0" encoding="utf-8" standalone="yes"?><annotations><ndpviewstate id="1"><title>Tumor</title>'
        '<coordformat>nanometers</coordformat><annotation type="freehand" displayname="AnnotateFreehand" color="#000">'
        f"<measuretype>0</measuretype><closed>1</closed><pointlist>{points}</pointlist></annotation>"
        "</ndpviewstate></annotations>"
    )
    yield annotation(
        "ndpa", "NDPA", view, suffix=".ndpa", slide=lambda path: ndpi(path, tissue(0.5)), slide_suffix=".ndpi", mpp=None
    )
    yield annotation("ndpa_of_png", "NDPA", view, listed("ndpa_of_png", "ndpi|hamamatsu|ndpa"), ".ndpa")
