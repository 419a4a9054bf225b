"""The house rules: dependencies run one way, commands are thin, importing is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "jules_jax"
ROOMS = ["market", "env", "agent", "evaluation", "training", "serving"]
FOUNDATION = {"config", "errors"}
COMMANDS = sorted(
    path
    for path in PACKAGE.glob("*.py")
    if path.stem not in {"__init__", "__main__", "config", "errors", "flags", "api"}
)


def foundation() -> list[Path]:
    return [PACKAGE / "errors.py", PACKAGE / "flags.py", *(PACKAGE / "config").glob("*.py")]


def imported_modules(path: Path) -> set[str]:
    """Dotted names that a file imports from this package, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("jules_jax.")}


@pytest.mark.parametrize("room", [room for room in ROOMS if (PACKAGE / room).exists()])
def test_a_room_imports_only_from_rooms_on_its_left(room: str) -> None:
    allowed = set(ROOMS[: ROOMS.index(room) + 1]) | FOUNDATION
    for path in (PACKAGE / room).rglob("*.py"):
        for name in imported_modules(path):
            assert name.split(".")[1] in allowed, f"{path.relative_to(PACKAGE)} imports {name}"


def test_the_foundation_imports_no_room() -> None:
    for path in foundation():
        for name in imported_modules(path):
            assert name.split(".")[1] in FOUNDATION, f"{path.name} imports {name}"


def test_the_foundation_imports_only_the_standard_library_at_module_level() -> None:
    for path in foundation():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                assert top == "jules_jax" or top in sys.stdlib_module_names, f"{path}: {name}"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda path: path.stem)
def test_commands_are_thin(command: Path) -> None:
    assert len(command.read_text(encoding="utf-8").splitlines()) < 120


@pytest.mark.parametrize("command", COMMANDS, ids=lambda path: path.stem)
def test_every_command_is_listed_and_no_room_imports_one(command: Path) -> None:
    listing = subprocess.run(
        [sys.executable, "-m", "jules_jax"], capture_output=True, text=True, check=True
    ).stdout
    assert f"python -m jules_jax.{command.stem} " in listing
    for room in ROOMS:
        for path in (PACKAGE / room).rglob("*.py"):
            assert f"jules_jax.{command.stem}" not in imported_modules(path)


def test_importing_the_package_imports_nothing_else() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    assert not [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]


def test_the_pure_environment_does_not_import_gymnax() -> None:
    code = (
        "import sys, jules_jax.env.transition, jules_jax.env.observation\n"
        "print('gymnax' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_the_architecture_page_names_every_module() -> None:
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    for room in ROOMS:
        for path in (PACKAGE / room).glob("*.py"):
            assert path.stem == "__init__" or path.stem in page, f"{room}/{path.name}"
    for command in COMMANDS:
        assert command.name in page


def test_only_the_network_may_use_flax() -> None:
    for path in PACKAGE.rglob("*.py"):
        assert "flax" not in path.read_text(encoding="utf-8") or path.name == "network.py", path
