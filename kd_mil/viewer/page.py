"""The page of the viewer: one or two plots of a slide, their layers, and what is drawn."""

from bokeh.document import Document
from bokeh.layouts import column, row
from bokeh.models import Button, CustomJS, Div, Range1d, Select

from kd_mil.prediction.panels import Panel
from kd_mil.viewer.content import Content
from kd_mil.viewer.drawing_tools import DrawingTools
from kd_mil.viewer.frame import Frame
from kd_mil.viewer.slide_plot import SlidePlot, slide_plot
from kd_mil.viewer.views import View, view_of

WIDTH, HEIGHT = 1000, 760
"""Of the plots together, in pixels."""


def fill(document: Document, content: Content, prefix: str) -> None:
    """Make the page that a request asks for."""
    request = document.session_context.request if document.session_context else None
    view = view_of(request.arguments if request is not None else {})
    wanted = view.slide_id or ""
    name = wanted if wanted in content.run.names else content.run.names[0]
    panel = content.run.panel(name)
    assert panel is not None
    frame = Frame(panel.mpp or 1.0)
    left, *right = _plots(content, panel, frame, view, prefix)
    tools = DrawingTools(left.figure, content.drawings, panel, frame, left.origin)
    faults = [content.slides.background(panel).fault, tools.fault]
    text = "; ".join([*_greeting(view, name, content), *filter(None, faults)])
    status = Div(text=text, name="status", render_as_text=True, disable_math=True)
    tools.say = lambda text: setattr(status, "text", text)
    controls = [_chooser(content, name), _link(left, frame, name), *left.controls, *tools.controls(left), status]
    others = [control for plot in right for control in plot.controls]
    heading = Div(text=f"{name}: {panel.verdict}", name="heading", render_as_text=True, disable_math=True)
    heading.styles = {"font-size": "1.1rem"}
    document.title = "kd_mil viewer"
    plots = row(*[plot.figure for plot in (left, *right)])
    document.add_root(row(column(heading, plots), column(*controls, *others, width=300), name="root"))


def _plots(content: Content, panel: Panel, frame: Frame, view: View, prefix: str) -> list[SlidePlot]:
    """The slide with the layers of the run, and beside it, on the same ranges, with those of the other."""
    others = [] if content.compare is None else [(content.compare, content.compare.panel(panel.name))]
    shown = [(content.run, panel), *((run, other) for run, other in others if other is not None)]
    width = WIDTH // len(shown)
    area = (*panel.origin, *panel.extent)
    x0, x1, y0, y1 = frame.ranges(view, area, width / HEIGHT)
    ranges = Range1d(x0, x1), Range1d(y0, y1)
    url = f"{prefix}/tile/{content.run.names.index(panel.name)}/{{Z}}/{{X}}/{{Y}}"
    mask = None if content.segments is None else content.segments.panel(panel.name)
    plots: list[SlidePlot] = []
    for run, one in shown:
        title = run.folder.absolute().name if len(shown) > 1 else ""
        size = width, HEIGHT
        plots.append(slide_plot(content, one, mask, panel, frame, ranges, url, size, title, beside=bool(plots)))
    return plots


def _greeting(view: View, name: str, content: Content) -> list[str]:
    lines = []
    if view.slide_id not in (None, name):
        lines.append(f"there is no slide {view.slide_id!r} here")
    if content.compare is not None and name not in content.compare.names:
        lines.append(f"{content.compare.folder.name} does not have this slide")
    return lines


def _chooser(content: Content, name: str) -> Select:
    """Another slide is another page, so that each has its own link."""
    chooser = Select(title="slide", value=name, options=list(content.run.names), name="slide")
    code = (
        "const at = new URL(location.href); at.search = new URLSearchParams({slide: cb_obj.value}); location.href = at"
    )
    chooser.js_on_change("value", CustomJS(code=code))
    return chooser


def _link(plot: SlidePlot, frame: Frame, name: str) -> Button:
    """The address bar follows the view; the button copies it."""
    x, y = plot.figure.x_range, plot.figure.y_range
    follow = CustomJS(
        args={"x": x, "y": y, "unit": frame.unit, "slide": name},
        code="""
        clearTimeout(window.kd_mil_link);
        window.kd_mil_link = setTimeout(() => {
          const at = new URL(location.href), whole = number => Math.round(number / unit).toString();
          at.search = new URLSearchParams({slide, x: whole((x.start + x.end) / 2), y: whole(-(y.start + y.end) / 2),
            width: whole(x.end - x.start)});
          history.replaceState(null, "", at);
        }, 200)""",
    )
    for name_of_end in ("start", "end"):
        x.js_on_change(name_of_end, follow)
        y.js_on_change(name_of_end, follow)
    button = Button(label="copy a link to this view", name="link")
    button.js_on_click(CustomJS(code="navigator.clipboard.writeText(location.href)"))
    return button
