"""The shape of the code: layers, sizes, and what each process imports. ARCHITECTURE.md holds the table."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "qwen_edge"
MODULES = sorted(PACKAGE.rglob("*.py"))


def layers() -> dict[str, int]:
    """Top-level name -> layer, from the table."""
    rows = re.findall(r"^\| (\d+) \| ((?:`\w+` ?)+)\|", (ROOT / "ARCHITECTURE.md").read_text(), flags=re.MULTILINE)
    return {name: int(number) for number, names in rows for name in re.findall(r"\w+", names)}


def place_of(file: Path) -> str:
    """The name under which a file stands in the table: its folder in the package, or itself."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(file: Path) -> set[str]:
    """Every module imported anywhere in a file, functions included."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def test_every_module_has_its_place_in_the_table():
    places = {place_of(file) for file in MODULES} - {"__init__", "__main__"}
    assert places == set(layers())


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_down_only(file):
    here = place_of(file)
    if here in ("__init__", "__main__"):
        return
    table = layers()
    for name in imports_of(file):
        parts = name.split(".")
        if parts[0] == "qwen_edge" and len(parts) > 1 and parts[1] in table and parts[1] != here:
            assert table[parts[1]] < table[here], f"{file.name} imports {name}"


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_libraries_stay_in_their_places(file):
    roots = {name.partition(".")[0] for name in imports_of(file)}
    here = place_of(file)
    assert not roots & {"torch", "transformers"}
    assert "llama_cpp" not in roots or here == "llama"
    assert "aiohttp" not in roots or here in ("server", "daemon", "client", "bench", "rate")
    assert "prometheus_client" not in roots or here == "server"
    assert not roots & {"asyncio", "socket", "subprocess", "threading"} or here != "chat"
    assert "jtop" not in roots or file.name == "jtop_helper.py"
    assert "pynvml" not in roots or here == "device"


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_named_tuples_have_no_other_base_which_python_3_10_refuses(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ClassDef) and "NamedTuple" in (bases := [ast.unparse(base) for base in node.bases]):
            assert bases == ["NamedTuple"], node.name


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(file):
    tree = ast.parse(file.read_text())
    assert len(file.read_text().splitlines()) <= 400
    assert ast.get_docstring(tree), "every module says what it is"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_public_things_say_what_they_are_for(file):
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            lines = (node.end_lineno or 0) - node.lineno
            assert ast.get_docstring(node) or lines < 16, f"{node.name} is public and has no docstring"


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_the_daemon_starts_its_engine_before_it_imports_anything_heavy():
    loaded = loaded_by("import qwen_edge.cli.serve")
    assert not loaded & {"aiohttp", "jinja2", "numpy", "llama_cpp", "rich", "gguf", "huggingface_hub"}
    assert "prometheus_client" not in loaded


def test_the_engine_imports_no_http():
    loaded = loaded_by("import qwen_edge.engine.main, qwen_edge.llama.backend")
    assert not loaded & {"aiohttp", "jinja2", "yaml", "rich", "gguf", "diskcache", "prometheus_client"}


def test_the_engine_loads_the_compiler_of_shapes_only_when_a_shape_comes():
    assert "llguidance" not in loaded_by("import qwen_edge.engine.main, qwen_edge.llama.backend")


def test_the_renderer_imports_what_it_renders_with_and_the_daemon_does_not():
    heavy = {"aiohttp", "asyncio", "numpy", "llama_cpp", "psutil", "yaml", "rich", "gguf"}
    loaded = loaded_by("import qwen_edge.renderer.main")
    assert "jinja2" in loaded
    assert not loaded & heavy
    assert "jinja2" not in loaded_by("import qwen_edge.daemon.main, qwen_edge.server.app")


def test_every_module_can_be_imported_alone():
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in MODULES]
    names.remove("qwen_edge.__main__")
    fresh = "for n in [n for n in sys.modules if n.partition('.')[0] == 'qwen_edge']: del sys.modules[n]"
    code = f"import sys, importlib\nfor name in {names!r}:\n    {fresh}\n    importlib.import_module(name)"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_architecture_fits_on_a_page():
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= 100
