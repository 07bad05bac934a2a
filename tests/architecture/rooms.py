"""The house: its rooms, what they import, and on which floor each of them is.

A room is a module at the top of the package, or a folder there with all that is in it.

    python tests/architecture/rooms.py              the rooms, from the top floor down
    python tests/architecture/rooms.py --arrows     with what each of them imports, and where
"""

from __future__ import annotations

import argparse
import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "nnrcodec"


def modules() -> list[Path]:
    """Return the modules of the package, by their paths in it."""
    return sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def room(module: Path) -> str:
    """Return the room of a module."""
    return module.parts[0].removesuffix(".py")


def imports(module: Path, *, anywhere: bool) -> Iterator[str]:
    """Yield what a module imports; unless `anywhere`, only what it does on being imported.

    An import under ``if TYPE_CHECKING`` is for names in annotations and does not count.
    """
    pending: list[ast.AST] = [ast.parse((PACKAGE / module).read_text(encoding="utf-8"))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif anywhere or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += ast.iter_child_nodes(node)


def imported_modules(module: Path) -> Iterator[Path]:
    """Yield the modules of the package that a module imports, wherever it does."""
    for name in imports(module, anywhere=True):
        parts = name.split(".")
        if parts[0] != "nnrcodec":
            continue
        for end in (len(parts), len(parts) - 1):  # the last part may be a name in a module
            path = Path(*parts[1:end]).with_suffix(".py") if end > 1 else Path("__init__.py")
            if (PACKAGE / path).is_file():
                yield path
                break
            if (PACKAGE / path.with_suffix("")).is_dir():
                yield path.with_suffix("") / "__init__.py"
                break


def arrows() -> dict[tuple[str, str], list[str]]:
    """Return which room imports which other one, and the imports that make it so."""
    found = defaultdict(list)
    for module in modules():
        for other in imported_modules(module):
            if room(module) != room(other):
                found[room(module), room(other)].append(f"{module} -> {other}")
    return dict(found)


def floors(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """Return how high each node of a graph is above those that need nothing.

    Raises
    ------
    graphlib.CycleError
        If there is a circle.
    """
    levels: dict[str, int] = {}
    for node in TopologicalSorter(graph).static_order():
        levels[node] = 1 + max((levels[below] for below in graph.get(node, ())), default=-1)
    return levels


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--arrows", action="store_true", help="show every import between rooms")
    options = parser.parse_args()
    found, rooms = arrows(), {room(module) for module in modules()}
    levels = floors({name: {b for a, b in found if a == name} for name in rooms})
    for name in sorted(rooms, key=lambda name: (-levels[name], name)):
        print(f"floor {levels[name]:2}  {name}")
        if options.arrows:
            for (own, _), places in sorted(found.items()):
                if own == name:
                    print(*(f"          {place}" for place in places), sep="\n")
    print(f"{len(rooms)} rooms, {len(found)} arrows between them")


if __name__ == "__main__":
    main()
