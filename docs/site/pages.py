"""The pages of the site that exist as files elsewhere in the repository, with their links turned to the site."""

import re
from collections.abc import Callable
from pathlib import Path

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
HOME_PLACES = (
    (re.compile(r"^docs/"), ""),
    (re.compile(r"^(experiments/\w+)/README\.md"), r"\1.md"),
)


def home(readme: Path) -> str:
    """README.md as the first page."""
    return with_links(readme.read_text(encoding="utf-8"), home_target)


def home_target(target: str) -> str | None:
    """Where a link of the README leads on the site; None where the site has no such page."""
    for pattern, place in HOME_PLACES:
        target = pattern.sub(place, target)
    known = target.startswith(("http", "#")) or target.split("#")[0].endswith((".md", ".png", ".jpg"))
    return target if known else None


def from_docs(text: str) -> str:
    """A page of docs/, whose links to records and to code leave the folder."""

    def target_of(target: str) -> str | None:
        if not target.startswith("../"):
            return target
        return re.sub(r"^\.\./(experiments/\w+)/README\.md", r"\1.md", target) if ".md" in target else None

    return with_links(text, target_of)


def changes(changelog: Path) -> str:
    """CHANGELOG.md."""
    return with_links(changelog.read_text(encoding="utf-8"), home_target)


def records(experiments: Path) -> list[str]:
    """Names of the records: folders with a README."""
    return sorted(path.parent.name for path in experiments.glob("*/README.md"))


def record_list(experiments: Path) -> str:
    """A page that names every record by the title of its README."""
    lines = [
        "# Records",
        "",
        "Every number of these pages has a record: command, commit, all values, what they do not show.",
        "",
    ]
    for name in records(experiments):
        title = (experiments / name / "README.md").read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        lines.append(f"- [{title}](experiments/{name}.md)")
    return "\n".join(lines) + "\n"


def record_page(folder: Path) -> str:
    """README of a record; links to its other files are left as text, for they stay in the repository."""

    def target_of(target: str) -> str | None:
        if target.startswith(("http", "#")):
            return target
        if re.match(r"^\.\./\w+/README\.md", target):
            return re.sub(r"^\.\./(\w+)/README\.md", r"\1.md", target)
        if target.endswith((".png", ".jpg")):
            return f"{folder.name}/{target}" if "/" not in target else target.removeprefix("../")
        return None

    return with_links((folder / "README.md").read_text(encoding="utf-8"), target_of)


def with_links(text: str, target_of: Callable[[str], str | None]) -> str:
    """The text with every link led through `target_of`; what it answers None for becomes code."""

    def replaced(link: re.Match[str]) -> str:
        target = target_of(link[3])
        return f"`{link[2].strip('`')}`" if target is None else f"{link[1]}[{link[2]}]({target})"

    parts = re.split(r"(^```.*?^```)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else LINK.sub(replaced, part) for part in parts)
