"""Drawing on a plot: nothing is written before a click on `save`."""

from collections.abc import Callable
from typing import Any

from bokeh.models import (
    Button,
    ColumnDataSource,
    CustomJS,
    Div,
    FreehandDrawTool,
    PolyDrawTool,
    PolyEditTool,
    Select,
)
from bokeh.transform import factor_cmap

from kd_mil.core.errors import UserError
from kd_mil.prediction.panels import Panel
from kd_mil.slides.overlays.geojson import TUMOUR
from kd_mil.viewer.drawings import CUT_OUT, Drawings, Drawn, rings
from kd_mil.viewer.frame import Frame
from kd_mil.viewer.layers import regions
from kd_mil.viewer.slide_plot import SlidePlot

HELP = {
    "by hand": "drag",
    "outline": "hold the button at its first and last corner, click those between",
    "corners": "hold the button on an outline, then drag them",
    "delete": "click an outline, then Backspace",
}
FORGET = """
const view = Bokeh.index.find_one(tool);
if (view?._cur_index != null) { view._cur_index = null; view._set_vertices([], []); }
"""
"""Bokeh's tool for corners (3.9) follows its outline when that is gone, fails, and the server is not told of it."""
COLOURS = {TUMOUR.name: "#c800c8", CUT_OUT: "#000000"}
OTHERS = "#0050c0"


class DrawingTools:
    """What is drawn on a plot, from the file of the slide on, and the buttons beside it.

    Args:
        plot: the figure.
        drawings: where outlines are kept.
        panel: of the slide.
        frame: coordinates of the plot.
        origin: level-0 (x, y) from which files count.
    """

    def __init__(self, plot: Any, drawings: Drawings, panel: Panel, frame: Frame, origin: tuple[int, int]) -> None:
        self.drawings, self.panel, self.frame, self.origin = drawings, panel, frame, origin
        self.say: Callable[[str], None] = lambda text: None
        self.version: str | None = None
        self.source = ColumnDataSource({"xs": [], "ys": [], "kind": []}, name="drawn")
        self.fault = self._load()
        color = factor_cmap("kind", list(COLOURS.values()), list(COLOURS), nan_color=OTHERS)
        lines = {"fill_color": color, "fill_alpha": 0.15, "line_color": color, "line_width": 2}
        areas = plot.patches("xs", "ys", source=self.source, name="shapes", **lines)
        corners = plot.scatter([], [], size=9, fill_color="white", line_color="black")
        how = {"renderers": [areas]}
        draw = PolyDrawTool(**how, empty_value=TUMOUR.name, description=told("outline"))
        by_hand = FreehandDrawTool(**how, empty_value=TUMOUR.name, description=told("by hand"))
        edit = PolyEditTool(**how, vertex_renderer=corners, description=told("corners"))
        self.forget = CustomJS(args={"tool": edit}, code=FORGET)
        edit.js_on_change("change:active", self.forget)
        self.tools = [draw, by_hand, edit]
        plot.add_tools(*self.tools)

    def controls(self, plot: SlidePlot) -> list[Any]:
        """Class, starting point, and the button that writes."""
        kinds = list(dict.fromkeys([TUMOUR.name, CUT_OUT, *self.source.data["kind"]]))
        kind = Select(title="drawing", value=TUMOUR.name, options=kinds, name="kind")
        choose = "for (const tool of tools) tool.empty_value = cb_obj.value"
        kind.js_on_change("value", CustomJS(args={"tools": self.tools[:2]}, code=choose))
        start = Button(label="start from the prediction", name="start")
        start.on_click(lambda: self._tried(lambda: self._start(plot)))
        clear = Button(label="clear", name="clear")
        clear.on_click(lambda: self._show([]))
        for button in (start, clear):
            button.js_on_click(self.forget)
        save = Button(label="save outlines", button_type="success", name="save")
        save.on_click(lambda: self._tried(self._save))
        text = "<br>".join(map(told, HELP))
        return [kind, start, clear, save, Div(text=text, width=280, styles={"color": "#555", "font-size": "0.8rem"})]

    def drawn(self) -> list[Drawn]:
        """The outlines on the plot, in level-0 pixels."""
        data = self.source.data
        columns = zip(data["xs"], data["ys"], data["kind"], strict=True)
        return [Drawn(str(kind), self.frame.to_slide(list(xs), list(ys))) for xs, ys, kind in columns]

    def _load(self) -> str:
        try:
            self.version = self.drawings.version(self.panel.name)
            self._show(self.drawings.load(self.panel.name, self.origin))
        except UserError as error:
            return str(error)
        return ""

    def _start(self, plot: SlidePlot) -> None:
        """Replace what is drawn by where the role reaches its threshold on the slider, else the panel's."""
        layer = next(layer for layer in plot.layers if layer.name == (self.panel.shown or self.panel.layers[-1].name))
        threshold = float(plot.thresholds[layer.name].value) or layer.threshold
        found = [ring for area in regions(layer, threshold) for ring in rings(area, TUMOUR.name)]
        self._show(found)
        self.say(f"{len(found)} outlines of {layer.name} from {threshold:.2f} on; nothing is saved yet")

    def _show(self, drawn: list[Drawn]) -> None:
        places = [self.frame.to_plot(points) for _, points in drawn]
        self.source.data = {
            "xs": [points[:, 0].tolist() for points in places],
            "ys": [points[:, 1].tolist() for points in places],
            "kind": [kind for kind, _ in drawn],
        }

    def _save(self) -> None:
        if self.fault:
            raise UserError(f"not saved: {self.fault}")
        path = self.drawings.save(self.panel.name, self.drawn(), self.origin, self.panel.mpp, self.version)
        self.version = self.drawings.version(self.panel.name)
        self.say(f"saved: {path}")

    def _tried(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (UserError, OSError) as error:
            self.say(str(error))


def told(what: str) -> str:
    """A line of help."""
    return f"{what}: {HELP[what]}"
