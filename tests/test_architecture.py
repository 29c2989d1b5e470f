"""The layers: a module imports only from rows below its own, and `import convergence` stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = {
    "convergence.parameters": 0,
    "convergence.observation": 0,
    "convergence.decision": 0,
    "convergence.lanes": 1,
    "convergence.memory": 1,
    "convergence.stats": 2,
    "convergence.rule": 3,
    "convergence.rules": 4,
    "convergence.wrappers": 4,
    "convergence.presets": 4,
    "convergence.parse": 5,
    "convergence.stopper": 5,
    "convergence.score": 5,
    "convergence.series": 6,
    "convergence.lockstep": 6,
    "convergence.histories": 6,
    "convergence.replay": 7,
    "convergence.targets": 7,
    "convergence.judge": 8,
    "convergence.report": 9,
    "convergence.cli": 10,
    "lightning_ext": 10,
    "benchmarks": 11,
}
FRONT_DOORS = {
    "convergence",
    "convergence.__main__",
    "convergence.rules",
    "convergence.presets",
    "convergence.histories",
}
HEAVY = {"torch", "pandas", "rich", "matplotlib", "pyarrow", "typer", "lightning", "pytorch_lightning", "sklearn"}


def modules():
    return list(_modules())


def _modules():
    for folder in ("convergence", "lightning_ext", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            yield pytest.param(name, path, id=name)


def row_of(name):
    found = [row for row in ROWS if name == row or name.startswith(row + ".")]
    assert found, f"{name} has no row in the layers"
    return max(found, key=len)


def imports(path):
    """Names of the modules that a file imports when it is imported, and inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top_level_imports(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def ours(name):
    return name.split(".")[0] in ("convergence", "lightning_ext", "benchmarks")


@pytest.mark.parametrize(("name", "path"), modules())
def test_imports_go_down(name, path):
    if name in ("convergence", "convergence.__main__"):
        return  # front doors hand names on
    own = row_of(name)
    for imported in filter(ours, imports(path)):
        if imported.startswith("convergence.") and imported.count(".") == 1 and ROWS.get(imported) is None:
            assert own in ("lightning_ext", "benchmarks", "convergence.cli"), f"{name} imports the front door"
            continue
        row = row_of(imported)
        rooms = ("convergence.stats", "convergence.presets", "convergence.histories", "convergence.report")
        rooms += ("benchmarks", "lightning_ext")
        same_room = row == own and own in rooms
        if name in FRONT_DOORS:
            same_room = same_room or row == own
        assert ROWS[row] < ROWS[own] or same_room, f"{name} (row {ROWS[own]}) imports {imported} (row {ROWS[row]})"


@pytest.mark.parametrize(("name", "path"), modules())
def test_rules_do_not_know_each_other(name, path):
    if name.startswith("convergence.rules."):
        assert not [i for i in imports(path) if i.startswith(("convergence.rules", "convergence.wrappers"))]


@pytest.mark.parametrize(("name", "path"), modules())
def test_heavy_libraries_are_imported_inside_functions(name, path):
    if name.startswith("convergence") and name != "convergence.cli" and not name.startswith("convergence.report"):
        assert not HEAVY & set(top_level_imports(path))


def test_import_convergence_loads_numpy_and_scipy_at_most():
    code = (
        "import sys; before = set(sys.modules); import convergence; "
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in run.stdout.split() if not name.startswith("_")}
    assert {"convergence", "numpy"} <= loaded <= {"convergence", "numpy", "scipy"}


def test_every_public_name_is_there_and_documented():
    import convergence

    assert sorted(convergence.__all__) == sorted(set(convergence.__all__))
    for name in convergence.__all__:
        assert getattr(convergence, name).__doc__, name


def test_nothing_is_evaluated_or_unpickled():
    for param in modules():
        _, path = param.values
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile", "__import__"}, path
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] + [getattr(node, "module", "") or ""]
                assert not {"pickle", "marshal", "shelve"} & set(names), path
