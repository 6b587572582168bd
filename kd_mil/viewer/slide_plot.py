"""One plot: a slide, layers over it with their controls, outlines, a scale bar, and the scores under the pointer."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import shapely
from bokeh.models import (
    CheckboxGroup,
    ColumnDataSource,
    CustomJS,
    CustomJSHover,
    Div,
    HoverTool,
    LinearColorMapper,
    MetricLength,
    ScaleBar,
    Slider,
    Toggle,
    WheelZoomTool,
    WMTSTileSource,
)
from bokeh.models.renderers import GlyphRenderer
from bokeh.plotting import figure

from kd_mil.core.errors import UserError
from kd_mil.prediction.panels import Panel
from kd_mil.slides.formats.deep_zoom import BEYOND
from kd_mil.viewer.content import Content
from kd_mil.viewer.frame import Frame
from kd_mil.viewer.layers import ShownLayer, finding_edges, palette, shown_layers, tissue_edges

RECOLOUR = """
const low = threshold.value, base = colours, last = base.length - 1;
if (signed) mapper.palette = base.map((colour, place) => Math.abs(2 * place / last - 1) < low ? "#00000000" : colour);
else {
  mapper.palette = base.map((_, place) => base[Math.round((low + (1 - low) * place / last) * last)]);
  mapper.low = low;
}
renderer.glyph.global_alpha = opacity.value;
renderer.visible = shown.active;
"""
"""Below the threshold a mapper's `low_color` is transparent, so scores are compared with it exactly."""


@dataclass
class SlidePlot:
    """A plot and what stands beside it."""

    figure: Any
    controls: list[Any]
    layers: list[ShownLayer]
    thresholds: dict[str, Slider]
    origin: tuple[int, int]
    """Level-0 (x, y) of the scanned area, from which QuPath counts."""


def slide_plot(
    content: Content,
    panel: Panel,
    mask: Panel | None,
    main: Panel,
    frame: Frame,
    ranges: tuple[Any, Any],
    url: str,
    size: tuple[int, int],
    title: str,
    beside: bool = False,
) -> SlidePlot:
    """A plot of the layers of `panel` over the slide of `main`, on given ranges, its tiles from `url`.

    The names of the models of a plot that stands `beside` another end so.
    """
    ending = " beside" if beside else ""
    wheel = WheelZoomTool(zoom_on_axis=False)
    plot = figure(
        x_range=ranges[0],
        y_range=ranges[1],
        width=size[0],
        height=size[1],
        tools=["pan", wheel, "box_zoom", "reset"],
        active_scroll=wheel,
        background_fill_color=BEYOND,
        name=f"plot{ending}",
    )
    plot.axis.visible, plot.grid.visible, plot.toolbar.logo = False, False, None
    background = content.slides.background(main)
    plot.add_tile(
        WMTSTileSource(url=url, attribution="", wrap_around=False, snap_to_zoom=False, **frame.pyramid(background))
    )
    layers = shown_layers(panel, mask)
    controls: list[Any] = [_heading(title)] if title else []
    thresholds = {}
    first = panel.shown or panel.layers[-1].name
    rasters = _rasters(layers)
    for raster in rasters:
        for column, layer in raster.columns.items():
            renderer = _add_layer(plot, layer, raster.source, column, frame, layer.name == first)
            more, thresholds[layer.name] = _controls(layer, renderer, layer.name == first, ending)
            controls += more
    _add_hover(plot, rasters, frame, "pixels" if main.mpp is None else "µm")
    if main.mpp is not None:
        plot.add_layout(ScaleBar(range=plot.x_range, unit="µm", dimensional=MetricLength(), location="bottom_left"))
    decides = next(layer for layer in layers if layer.name == first)
    controls.append(_outlines(plot, content, main, decides, frame))
    slide = background.slide
    origin = main.origin if slide is None else slide.bounds[:2]
    return SlidePlot(plot, controls, layers, thresholds, origin)


def _heading(text: str) -> Div:
    return Div(text=text, render_as_text=True, disable_math=True, styles={"font-weight": "bold"})


class Raster(NamedTuple):
    """Layers whose cells are the same, in one source: what is coloured is what the pointer tells, and sent once."""

    source: ColumnDataSource
    columns: dict[str, ShownLayer]
    """By name of the column."""


def _rasters(layers: list[ShownLayer]) -> list[Raster]:
    groups: dict[tuple, list[ShownLayer]] = {}
    for layer in layers:
        groups.setdefault((layer.grid.shape, layer.cell, layer.origin), []).append(layer)
    named = [{f"v{place}": layer for place, layer in enumerate(group)} for group in groups.values()]
    return [
        Raster(ColumnDataSource({column: [np.flipud(layer.grid)] for column, layer in columns.items()}), columns)
        for columns in named
    ]


def _add_layer(
    plot: Any, layer: ShownLayer, source: ColumnDataSource, column: str, frame: Frame, visible: bool
) -> GlyphRenderer:
    low = -1.0 if layer.signed else 0.0
    clear = "rgba(0, 0, 0, 0)"
    mapper = LinearColorMapper(palette=palette(layer.signed), low=low, high=1.0, nan_color=clear, low_color=clear)
    place = frame.image(layer)
    return plot.image(column, source=source, color_mapper=mapper, visible=visible, name=f"layer {layer.name}", **place)


def _controls(layer: ShownLayer, renderer: GlyphRenderer, active: bool, ending: str) -> tuple[list[Any], Slider]:
    name = f"{layer.name}{ending}"
    shown = Toggle(label=layer.name, active=active, name=f"show {name}", button_type="primary")
    ends = {"start": 0, "end": 1, "width": 280}
    threshold = Slider(title="threshold", value=0, step=0.01, name=f"threshold {name}", **ends)
    opacity = Slider(title="opacity", value=1, step=0.05, name=f"opacity {name}", **ends)
    args = {"shown": shown, "threshold": threshold, "opacity": opacity, "renderer": renderer}
    more = {"mapper": renderer.glyph.color_mapper, "colours": palette(layer.signed), "signed": layer.signed}
    change = CustomJS(args=args | more, code=RECOLOUR)
    shown.js_on_change("active", change)
    threshold.js_on_change("value", change)
    opacity.js_on_change("value", change)
    return [shown, threshold, opacity], threshold


def _add_hover(plot: Any, rasters: list[Raster], frame: Frame, unit: str) -> None:
    """An invisible picture for each raster tells its values: what is hidden or below its threshold is said, too."""
    for number, (source, columns) in enumerate(rasters):
        place, unseen = frame.image(columns["v0"]), {"palette": ["#000000"], "global_alpha": 0}
        renderer = plot.image("v0", source=source, name=f"values {number}", **unseen, **place)
        tips = [(layer.label, f"@{column}{{0.000}}") for column, layer in columns.items()]
        tips += [("x, y", f"$x{{0}}, $y{{custom}} {unit}")] if number == 0 else []
        downwards = {"$y": CustomJSHover(code="return (-value).toFixed(0)")}
        plot.add_tools(HoverTool(renderers=[renderer], tooltips=tips, formatters=downwards, visible=number == 0))


def _outlines(plot: Any, content: Content, panel: Panel, layer: ShownLayer, frame: Frame) -> CheckboxGroup:
    """Tissue, prediction, and annotation where there is one."""
    lines, labels = [], []
    for name, color, edges in (
        ("tissue", "#008000", tissue_edges(layer)),
        ("prediction", "#c00000", finding_edges(layer)),
    ):
        source = ColumnDataSource(frame.segments(edges))
        lines.append(plot.segment(source=source, line_color=color, line_width=2, visible=False))
        labels.append(name)
    fault, annotated = _annotation(content, panel)
    if annotated is not None or fault:
        polygons = [part for part in shapely.get_parts(annotated) if part.geom_type == "Polygon"]
        source = ColumnDataSource(frame.lines(polygons))
        lines.append(plot.multi_line("xs", "ys", source=source, line_color="#0050c0", line_width=2))
        labels.append(f"annotation{fault}")
    for line, label in zip(lines, labels, strict=True):
        line.name = f"outline {label}"
    active = [place for place, line in enumerate(lines) if line.visible]
    group = CheckboxGroup(labels=[f"outline: {label}" for label in labels], active=active, name="outlines")
    code = "lines.forEach((line, place) => line.visible = cb_obj.active.includes(place))"
    group.js_on_change("active", CustomJS(args={"lines": lines}, code=code))
    return group


def _annotation(content: Content, panel: Panel) -> tuple[str, shapely.Geometry | None]:
    """What is annotated; where that cannot be read, why."""
    try:
        return "", content.slides.annotation(panel.name)
    except UserError as error:
        return f": {error}", None
