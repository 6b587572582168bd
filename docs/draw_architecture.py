"""Draw the rooms of kd_mil and who imports whom, from the imports themselves, as a Mermaid diagram.

python docs/draw_architecture.py            # prints the diagram
python docs/draw_architecture.py --write    # puts it into docs/architecture.md
"""

import ast
import re
import sys
from pathlib import Path

import networkx as nx

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "kd_mil"
PAGE = ROOT / "docs" / "architecture.md"
BLOCK = re.compile(r"```mermaid\n(.*?)```", re.DOTALL)

ROOMS = {
    "commands": "run, extract, predict, segment, view,<br/>evaluate, chain, report, frontier,<br/>"
    "reproduce, export, doctor",
    "cli": "Hydra, settings, user mistakes",
    "jobs": "what each command does",
    "training": "what changes a fit",
    "callbacks": "what draws and writes",
    "plot": "pictures as axes",
    "sweep": "many runs as processes",
    "reporting": "many runs in one page",
    "diagnosis": "what the doctor checks",
    "viewer": "predictions in a browser",
    "prediction": "a checkpoint on new slides",
    "cards": "what a checkpoint says<br/>of its model",
    "methods": "WENO, Distill-to-Label, IFKD,<br/>resolution, baselines",
    "methods/base": "what all methods share",
    "evaluation": "tables, metrics, thresholds",
    "models": "networks only",
    "data": "data sets, splits, samplers",
    "data/batches": "all that a method sees of data",
    "slides": "slide formats, tiles,<br/>annotations, extraction",
    "core": "errors, files, records",
}
"""What stands in each node. Folders of one room are drawn together, except where a part has a place of its own."""


def imports_of(path: Path) -> set[str]:
    """Dotted names of the modules that a file imports, imports inside functions included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(str(node.module))
    return names


def room_of(module: str) -> str:
    """The room that a module such as `kd_mil.methods.weno.losses` is drawn in."""
    _, *folders, name = module.split(".")
    parts = [*folders, name]
    return next((room for room in ("/".join(parts[:2]), parts[0]) if folders and room in ROOMS), "commands")


def room_graph() -> nx.DiGraph:
    """Rooms as nodes; an arrow from each room to every other room that one of its files imports."""
    graph = nx.DiGraph()
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for name in imports_of(path) if path.name != "__init__.py" else ():
            if name.startswith("kd_mil.") and room_of(name) != room_of(module):
                graph.add_edge(room_of(module), room_of(name))
    return graph


def diagram() -> str:
    """The diagram without the arrows that follow from others (a transitive reduction), so that it can be read."""
    arrows = nx.transitive_reduction(room_graph()).edges
    lines = ["flowchart TD"]
    lines += [f'    {_id(room)}["<b>{room}</b><br/>{label}"]' for room, label in ROOMS.items()]
    lines += [f"    {_id(start)} --> {_id(end)}" for start, end in sorted(arrows, key=_by_position)]
    return "\n".join(lines) + "\n"


def _id(room: str) -> str:
    return room.replace("/", "_")


def _by_position(arrow: tuple[str, str]) -> tuple[int, int]:
    rooms = list(ROOMS)
    return rooms.index(arrow[0]), rooms.index(arrow[1])


def write() -> None:
    """Replace the diagram in the page."""
    text = PAGE.read_text()
    PAGE.write_text(BLOCK.sub(lambda _: f"```mermaid\n{diagram()}```", text, count=1))


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        write()
    else:
        print(diagram(), end="")
