"""What README and docs name exists: commands, settings, modules, files; and the picture shows the imports."""

import pkgutil
import re
import shlex
from pathlib import Path

import networkx as nx
import pytest
import yaml
from hydra import compose, initialize_config_dir

from docs.draw_architecture import BLOCK, PACKAGE, PAGE, ROOMS, diagram, room_graph
from kd_mil.chain import QUOTED
from kd_mil.cli.arguments import with_quoted_values
from kd_mil.cli.command import CONFIG_DIR
from kd_mil.cli.resolvers import register_resolvers
from tests.support.configs import compose_run

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RECORDS = sorted((ROOT / "experiments").glob("*/README.md"))
WITH_FILES_OF_ITS_OWN = ROOT / "docs" / "extending.md"
"""Its commands need the files that the page shows: `test_extending.py` runs them."""
MADE = {ROOT / "docs" / name for name in ("index.md", "changes.md", "settings.md", "records.md")}
"""Pages of the site that are made when it is built (`test_site.py`)."""
ITS_OWN = ("smoke=", "smoke_seconds=", "features=", "data_sets=")
"""Settings of the doctor; the others of its command line are those of a run."""
CODE = re.compile(r"```.*?```|`[^`\n]+`", re.DOTALL)
CHOICE = re.compile(r"(?<![\w./+-])([a-z_/]+)=([a-z0-9_]+(?:(?:\\?\||,)[a-z0-9_]+)*)(?![\w*.=/])")
GROUPS = {str(path.relative_to(CONFIG_DIR)) for path in CONFIG_DIR.rglob("*") if path.is_dir()} - {"hydra/launcher"}
SOURCES = re.compile(r"(?<![\w./-])(?:kd_mil|conf|docs|tests|benchmarks|experiments|hydra_plugins)/[\w./-]*\w")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def documented_commands():
    for page in (page for page in PAGES if page != WITH_FILES_OF_ITS_OWN):
        text = page.read_text().replace("\\\n", " ")
        blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
        for block in (block for language, block in blocks if language in ("", "bash", "sh", "console")):
            for line in block.splitlines():
                found = re.search(r"(?:python -m kd_mil\.|^kd-mil )(\w+)(.*)", line.split("  #")[0])
                if found:
                    yield pytest.param(*found.groups(), id=f"{page.name}:{found[0][10:90]}")


@pytest.mark.parametrize(("command", "arguments"), list(documented_commands()))
def test_documented_command_composes(command, arguments):
    if "hydra/launcher=ray" in arguments:
        pytest.importorskip("hydra_plugins.hydra_ray_launcher")
    words = [word for word in shlex.split(arguments) if word not in ("-m", "--multirun")]
    spaces = ("interval(", "range(", "choice(")  # searched by a sweeper, no value of a single run
    fixed = [word for word in words if "=" in word and "$" not in word and not any(space in word for space in spaces)]
    if command == "chain":
        fixed = with_quoted_values(fixed, QUOTED)
    overrides = [_first_value(word) for word in fixed]
    register_resolvers()
    if command == "doctor":
        command, overrides = "run", [word for word in overrides if not word.startswith(ITS_OWN)]
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        compose(command, overrides=overrides, return_hydra_config=True)


def _first_value(override):
    """Of a sweep `key=a,b,c` the point `key=a`; lists and quoted commas stay."""
    key, _, value = override.partition("=")
    return override if value.startswith(("[", "{", "'")) else f"{key}={value.split(',')[0]}"


def test_experiments_a_page_names_compose():
    for name in {value for page in PAGES for group, value in choices(page) if group == "experiment"}:
        assert compose_run(f"experiment={name}").experiment_name == name


def choices(page):
    """(group, value) of every `trainer=ddp` or `hpm=off|threshold` in the code of a page."""
    for code in CODE.findall(re.sub(r"^```python\n.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)):
        for group, values in CHOICE.findall(code):
            yield from ((group, value) for value in re.split(r"\\?\||,", values) if group in GROUPS)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_choices_a_page_names_exist(page):
    own = set(re.findall(r"my_conf/(\w+)/(\w+)\.yaml", page.read_text()))
    for group, value in (choice for choice in choices(page) if choice[0] != "experiment"):
        assert (CONFIG_DIR / group / f"{value}.yaml").exists() or (group, value) in own, f"{group}={value}"


def experiments_of_the_methods_table():
    table = re.search(r"^\| method \|.*?(?=^$)", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    return sorted({name for row in table[0].splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[2])})


@pytest.mark.parametrize("name", experiments_of_the_methods_table())
def test_experiment_of_the_methods_table_composes(name):
    assert compose_run(f"experiment={name}").experiment_name == name


@pytest.mark.parametrize("page", [*PAGES, *RECORDS], ids=name_of)
def test_files_a_page_points_to_exist(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        path = page.parent / target
        made = path.resolve() in MADE or path.with_suffix(".ipynb").exists()
        assert path.exists() or made, f"{page.name} points to {target}"


@pytest.mark.parametrize("page", [*PAGES, *RECORDS], ids=name_of)
def test_modules_and_files_a_page_names_exist(page):
    """Dotted paths lead to a module or to what it holds; paths of the source tree lead to a file or folder."""
    for code in CODE.findall(re.sub(r"^```python\n.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)):
        for dotted in re.findall(r"\bkd_mil(?:\.\w+)+", code):
            pkgutil.resolve_name(dotted)
        for path in SOURCES.findall(code):
            assert (ROOT / path).exists() or path == "kd_mil/conf", path  # where conf/ lies in the wheel
        for path in re.findall(r"`(\w+(?:/\w+)+\.py)`", code):
            assert (ROOT / path).exists() or (PACKAGE / path).exists(), path


def test_the_number_of_the_version_is_the_same_everywhere():
    [project] = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    [cited] = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    newest = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert project == cited == newest


def test_continuous_integration_tests_the_versions_that_are_promised():
    project = (ROOT / "pyproject.toml").read_text()
    promised = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', project)
    [matrix] = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]["tests"]["strategy"][
        "matrix"
    ].values()
    assert matrix == promised
    assert f'requires-python = ">={promised[0]}"' in project


def test_the_picture_in_the_page_is_the_one_of_the_code():
    [drawn] = BLOCK.findall(PAGE.read_text())
    assert drawn == diagram(), "run `python docs/draw_architecture.py --write`"


def test_the_picture_shows_every_room_and_no_circle():
    graph = room_graph()
    folders = {path.parent.relative_to(PACKAGE).parts[0] for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE}
    assert {room.split("/")[0] for room in ROOMS} == folders | {"commands"}
    assert set(graph) == set(ROOMS)
    assert nx.is_directed_acyclic_graph(graph)


def test_arrows_left_out_of_the_picture_follow_from_those_in_it():
    [drawn] = BLOCK.findall(PAGE.read_text())
    arrows = nx.DiGraph(re.findall(r"(\w+) --> (\w+)", drawn))
    for start, end in room_graph().edges:
        assert nx.has_path(arrows, start.replace("/", "_"), end.replace("/", "_"))
    assert len(arrows.edges) <= 30, "a reader cannot follow more"
