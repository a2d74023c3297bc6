"""The tree is what it is said to be: packages, imports, sizes, the wheel."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import zipfile

import pytest

from tests.repo.tree import PACKAGES, PYPROJECT, ROOT, dotted, files, imports, name, parsed, production

#: A file is one idea that a newcomer would name; below this, its length is not counted.
MAX_FILE_LINES = 800

#: Who may read the wall clock, and why.
CLOCKS = {
    "receipted/wiring.py": "the service's one clock, passed to everything",
    "receipted/demo/command.py": "takes a new seed",
    "sandbox/times.py": "the other side of the wire has a clock of its own",
    "sandbox/shop.py": "the other side of the wire checks the age of signatures",
}
_CLOCK = re.compile(r"(.*\.)?(datetime\.(now|utcnow|today)|date\.today|time\.(time|time_ns))")


def test_the_list_is_the_tree():
    tree = {folder.name for folder in ROOT.iterdir() if (folder / "__init__.py").is_file()} - {"tests"}

    assert set(PACKAGES) == tree
    assert len(PACKAGES) == len(tree)


def test_every_tool_has_the_same_list():
    tools = PYPROJECT["tool"]

    assert set(PACKAGES) == set(tools["importlinter"]["root_packages"])
    assert set(PACKAGES) == set(tools["mypy"]["packages"])


def test_import_linter_keeps_every_provider_apart():
    (apart,) = (c for c in PYPROJECT["tool"]["importlinter"]["contracts"] if c["type"] == "independence")
    providers = {f"providers.{path.parent.name}" for path in ROOT.glob("providers/*/provider.py")}

    assert set(apart["modules"]) == providers


def test_nobody_else_owns_our_names():
    owners = importlib.metadata.packages_distributions()

    assert {owner for package in PACKAGES for owner in owners.get(package, ())} <= {"receipted"}


def test_no_name_of_ours_is_the_standard_librarys():
    assert not set(PACKAGES) & sys.stdlib_module_names


@pytest.mark.parametrize("path", [path for path in production() if path.name == "__init__.py"], ids=name)
def test_an_init_is_a_docstring_and_nothing_else(path):
    body = parsed(path).body

    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)
    assert isinstance(body[0].value, ast.Constant)
    assert isinstance(body[0].value.value, str)


def test_every_module_says_what_it_is():
    silent = [
        name(path) for path in production() if "/versions/" not in name(path) and not ast.get_docstring(parsed(path))
    ]

    assert silent == []


def test_no_file_is_longer_than_the_limit():
    sizes = {name(path): len(path.read_text().splitlines()) for path in production()}

    assert {path: size for path, size in sizes.items() if size > MAX_FILE_LINES} == {}


def test_one_file_reads_the_environment():
    of_os = {"os.environ", "os.environb", "os.getenv", "os.getenvb"}
    readers = {
        name(path)
        for path in production()
        if of_os
        & {*imports(tree := parsed(path)), *(dotted(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute))}
    }

    assert readers == {"receipted/settings/load.py"}


def test_one_file_knows_the_transitions_library():
    users = {
        name(path)
        for path in production()
        if any(module.partition(".")[0] == "transitions" for module in imports(parsed(path)))
    }

    assert users == {"statemachine/machine.py"}


def test_every_server_bounds_what_it_reads():
    """Web, metrics of a worker and the demonstration; the sandbox shares nothing with what it tests."""
    served = {
        name(path): {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        for path in production()
        if not name(path).startswith("sandbox/")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and dotted(node.func).endswith("uvicorn.Config")
    }
    assert set(served) == {"receipted/cli/server.py", "receipted/demo/run.py", "receipted/monitoring.py"}
    for options in served.values():
        assert (options.get("http"), options.get("ws")) == ("BoundedProtocol", "'none'")


def test_only_storage_knows_sql():
    users = {
        name(path).partition("/")[0]
        for path in production()
        if {"sqlalchemy", "sqlmodel", "alembic"} & {module.partition(".")[0] for module in imports(parsed(path))}
    }

    assert users == {"storage"}


def test_the_wall_clock_is_read_where_it_may_be():
    readers = {
        name(path)
        for path in production()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call) and _CLOCK.fullmatch(dotted(node.func))
    }

    assert readers == set(CLOCKS)


def test_no_test_module_keeps_the_time_of_its_import():
    """A run takes longer than what is measured against that time."""
    kept = [
        f"{name(path)}:{node.lineno}"
        for path in files()
        if path.suffix == ".py" and "tests" in path.relative_to(ROOT).parts
        for node in parsed(path).body
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for call in ast.walk(node.value)
        if isinstance(call, ast.Call) and _CLOCK.fullmatch(dotted(call.func) or "")
    ]

    assert kept == []


def test_the_wheel_holds_exactly_our_packages(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "-w", tmp_path, ROOT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("receipted-*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    ours = {path for path in map(name, files()) if path.partition("/")[0] in PACKAGES}

    assert {path for path in inside if ".dist-info/" not in path} == ours
    assert "storage/migrations/script.py.mako" in inside
    assert any(path.startswith("storage/migrations/versions/0010") for path in inside)
    assert any(path.endswith(".dist-info/licenses/LICENSE") for path in inside)


def test_the_command_is_installed():
    (command,) = importlib.metadata.entry_points(group="console_scripts", name="receipted")

    assert callable(command.load())


def test_it_is_never_uploaded():
    assert "Private :: Do Not Upload" in PYPROJECT["project"]["classifiers"]
