"""Executed notebooks as pages: text, code, what it printed, and its pictures."""

import base64
import json
import re
from pathlib import Path
from typing import Any

COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def as_markdown(notebook: Path) -> tuple[str, dict[str, bytes]]:
    """The page of a notebook, and its pictures by file name."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    lines: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in content["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            lines.append(source)
            continue
        lines.append(fenced(source, "python"))
        for output in cell.get("outputs", []):
            text, picture = shown(output)
            if text:
                lines.append(fenced(text, "text"))
            if picture:
                name = f"{notebook.stem}_{len(pictures)}.png"
                pictures[name] = picture
                lines.append(f"![what the code above draws]({name})")
    return "\n\n".join(lines) + "\n", pictures


def fenced(text: str, language: str) -> str:
    """A block of code."""
    return f"```{language}\n{text.rstrip()}\n```"


def shown(output: dict[str, Any]) -> tuple[str, bytes | None]:
    """Text and picture of one output."""
    if output["output_type"] == "stream":
        return COLOURS.sub("", "".join(output["text"])), None
    data = output.get("data", {})
    if "image/png" in data:
        return "", base64.b64decode("".join(data["image/png"]))
    return COLOURS.sub("", "".join(data.get("text/plain", ""))), None
