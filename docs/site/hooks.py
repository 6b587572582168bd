"""Pages of the site that are made from other files: README, settings, records, notebooks. MkDocs calls `on_files`."""

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from docs.site.notebooks import as_markdown  # noqa: E402
from docs.site.pages import changes, from_docs, home, record_list, record_page, records  # noqa: E402
from docs.site.settings import settings_page  # noqa: E402


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages and their pictures."""

    def add(path: str, content: str | bytes) -> None:
        files.append(File.generated(config, path, content=content))

    add("index.md", home(ROOT / "README.md"))
    add("changes.md", changes(ROOT / "CHANGELOG.md"))
    add("settings.md", settings_page(ROOT / "conf"))
    add("records.md", record_list(ROOT / "experiments"))
    for name in records(ROOT / "experiments"):
        folder = ROOT / "experiments" / name
        add(f"experiments/{name}.md", record_page(folder))
        for picture in (path for path in sorted(folder.iterdir()) if path.suffix in (".png", ".jpg")):
            add(f"experiments/{name}/{picture.name}", picture.read_bytes())
    for notebook in sorted((ROOT / "docs" / "tutorials").glob("*.ipynb")):
        page, pictures = as_markdown(notebook)
        add(f"tutorials/{notebook.stem}.md", page)
        for name, picture in pictures.items():
            add(f"tutorials/{name}", picture)
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        files.remove(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links of pages under docs/ that leave the folder."""
    return markdown if page.file.generated_by or "/" in page.file.src_uri else from_docs(markdown)
