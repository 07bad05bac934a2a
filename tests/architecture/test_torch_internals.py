"""What PyTorch does not document is used in one module only."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "nnrcodec"
ALLOWED = PACKAGE / "graph" / "torch_internals.py"
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path != ALLOWED)

PRIVATE_PATH = re.compile(r"torch\.(\w+\.)*(_(?!_version__)\w*|experimental)(\.\w+)*")
"""A name below torch with a part that starts with an underscore, or is not settled yet."""

PRIVATE_ATTRIBUTES = {
    *("_cdata", "_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"),
    *("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_version", "_base"),
    *("_dispatch_keys", "_typed_storage", "_flat_weights", "_schema", "_opname"),
}
"""Of tensors, storages, modules and operators, whatever the name of the variable is."""


def private_names(source: str) -> Iterator[str]:
    """Yield what a module uses of PyTorch that PyTorch keeps to itself."""
    tree = ast.parse(source)
    aliases: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                aliases[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
                yield from _private(alias.name)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield from _private(f"{node.module}.{alias.name}")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute):
            continue
        owner, _, rest = ast.unparse(node).partition(".")
        yield from _private(f"{aliases.get(owner, owner)}.{rest}")
        own = isinstance(node.value, ast.Name) and node.value.id == "self"
        if node.attr in PRIVATE_ATTRIBUTES and not own:
            yield node.attr
        if node.attr in {"expr", "hint"} and ast.unparse(node.value).endswith(".node"):
            yield f"node.{node.attr}"


def _private(name: str) -> Iterator[str]:
    if PRIVATE_PATH.fullmatch(name):
        yield name


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_private_names_of_pytorch_are_used_in_one_module_only(module: Path) -> None:
    assert not list(private_names((PACKAGE / module).read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "source",
    [
        "import torch._subclasses",
        "import torch.fx.experimental.symbolic_shapes as shapes",
        "from torch.utils import _pytree as pytree",
        "from torch._subclasses.fake_tensor import FakeTensorMode",
        "from torch import fx\nfx.experimental.proxy_tensor",
        "import torch\ntorch.ops.mkldnn._is_mkldnn_bf16_supported()",
        "import torch as t\nisinstance(x, t._ops.OpOverload)",
        "x.untyped_storage()._cdata",
        "size.node.hint",
        "module._parameters['weight']",
    ],
)
def test_private_names_are_found(source: str) -> None:
    assert list(private_names(source))


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.__version__",
        "from torch.utils.flop_counter import FlopCounterMode",
        "call.node.args",
        "self._modules = 1, 2",
    ],
)
def test_public_names_are_not(source: str) -> None:
    assert not list(private_names(source))
