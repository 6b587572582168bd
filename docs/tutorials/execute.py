"""Execute the tutorials and keep them with their output: `python docs/tutorials/execute.py [NAME ...]`.

Each NAME.py has cells between `# %%` lines; NAME.ipynb is written beside it. Needs nbclient and ipykernel.
"""

import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

FOLDER = Path(__file__).resolve().parent
CELL = re.compile(r"^# %%(.*)$", re.MULTILINE)
PROGRESS = re.compile(r"[^\n]*\r")


def cells_of(script: str) -> list[nbformat.NotebookNode]:
    """The cells of a script, those marked `[markdown]` without their comment signs."""
    _, *parts = CELL.split(script)
    cells = []
    for kind, text in zip(parts[::2], parts[1::2], strict=True):
        if "[markdown]" in kind:
            cells.append(new_markdown_cell(re.sub(r"^# ?", "", text.strip(), flags=re.MULTILINE)))
        else:
            cells.append(new_code_cell(text.strip()))
    return cells


def executed(script: Path) -> nbformat.NotebookNode:
    """The notebook of a script, run in a folder of its own.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    notebook = new_notebook(cells=cells_of(script.read_text(encoding="utf-8")))
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=900, resources={"metadata": {"path": folder}}).execute()
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        if "outputs" in cell:
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.get("outputs", []):
            if "text" in output:
                output["text"] = PROGRESS.sub("", output["text"])
        cell.get("metadata", {}).pop("execution", None)
    return notebook


def main(names: list[str]) -> None:
    """Execute the named tutorials, or all."""
    for script in sorted(FOLDER.glob("*.py")):
        if script.name != Path(__file__).name and (not names or script.stem in names):
            nbformat.write(executed(script), script.with_suffix(".ipynb"))
            print(script.with_suffix(".ipynb").name)


if __name__ == "__main__":
    main(sys.argv[1:])
