"""The documentation site: pages made from README, records, settings and notebooks, and no dead link."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from docs.site.notebooks import as_markdown
from docs.site.pages import from_docs, home, record_page
from docs.site.settings import settings_page
from kd_mil.cli.command import CONFIG_DIR

ROOT = Path(__file__).resolve().parent.parent
TUTORIALS = sorted(path for path in (ROOT / "docs" / "tutorials").glob("*.py") if path.stem != "execute")


def test_links_of_the_readme_lead_to_pages_of_the_site(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(
        "[a](docs/formats.md#tables) [b](experiments/x/README.md) ![c](experiments/x/roc.png) "
        "[`d`](experiments/benchmarks) [e](https://example.org) [f](#top)\n```\n[g](docs/untouched.md)\n```\n"
    )
    assert home(readme) == (
        "[a](formats.md#tables) [b](experiments/x.md) ![c](experiments/x/roc.png) `d` "
        "[e](https://example.org) [f](#top)\n```\n[g](docs/untouched.md)\n```\n"
    )


def test_links_of_a_record_stay_among_records_or_become_text(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "README.md").write_text(
        "![a](roc.png) ![b](../other/c.png) [d](../other/README.md) [values](results.json)"
    )
    assert record_page(folder) == "![a](mine/roc.png) ![b](other/c.png) [d](other.md) `values`"


def test_links_of_docs_that_leave_the_folder():
    text = "[a](formats.md) [b](../experiments/x/README.md) [c](../experiments/x/run.py)"
    assert from_docs(text) == "[a](formats.md) [b](experiments/x.md) `c`"


def test_settings_have_their_defaults_and_comments(tmp_path):
    (tmp_path / "run.yaml").write_text("# Train.\nseed: 0   # of [weights] | order\n")
    (tmp_path / "hpm").mkdir()
    (tmp_path / "hpm" / "off.yaml").write_text("# No mining <at all>.\n")
    page = settings_page(tmp_path)
    assert "| <code>seed=0</code> | of &#91;weights] &#124; order |" in page
    assert "### `hpm=off`\n\nNo mining &lt;at all>" in page


def test_every_setting_of_a_run_is_in_the_reference():
    page = settings_page(CONFIG_DIR)
    for setting in ("bags_per_step=1", "threshold=0.9", "student_lr=null", "slides=null"):
        assert f"<code>{setting}</code>" in page


def test_a_notebook_becomes_a_page_with_its_pictures(tmp_path):
    picture = base64.b64encode(b"png").decode()
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["\x1b[1mbold\x1b[0m\n"]},
        {"output_type": "display_data", "data": {"image/png": picture}},
        {"output_type": "execute_result", "data": {"text/plain": ["3"]}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title"]},
        {"cell_type": "code", "source": ["1 + 2"], "outputs": outputs},
    ]
    path = tmp_path / "mine.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    page, pictures = as_markdown(path)
    assert pictures == {"mine_0.png": b"png"}
    assert page.split("\n\n") == [
        "# Title",
        "```python\n1 + 2\n```",
        "```text\nbold\n```",
        "![what the code above draws](mine_0.png)",
        "```text\n3\n```\n",
    ]


@pytest.mark.parametrize("script", TUTORIALS, ids=lambda path: path.stem)
def test_a_notebook_is_its_script_executed_without_an_error(script):
    """`python docs/tutorials/execute.py` makes it anew."""
    cells_of = pytest.importorskip("docs.tutorials.execute").cells_of
    cells = json.loads(script.with_suffix(".ipynb").read_text())["cells"]
    expected = [(cell.cell_type, cell.source) for cell in cells_of(script.read_text())]
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in cells] == expected
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert outputs
    assert all(output["output_type"] != "error" for output in outputs)
    assert script.with_suffix(".ipynb").stat().st_size < 500_000


@pytest.mark.slow
def test_the_site_is_built_without_network_and_without_a_dead_link(tmp_path):
    """`strict` turns every warning, a dead link or a missing name among them, into an error."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert built.returncode == 0, built.stderr[-3000:]
    assert "hard positive mining" in (site / "api" / "index.html").read_text().lower()
    assert (site / "experiments" / "weno_transport" / "index.html").exists()
    pages = "".join(path.read_text() for path in site.rglob("*.html"))
    assert "fonts.googleapis" not in pages
