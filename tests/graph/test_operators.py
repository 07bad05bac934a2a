"""The allow-list agrees with PyTorch and with the specification."""

import re
from pathlib import Path

import pytest
import torch

from nnrcodec.graph.operator_table import TABLE
from nnrcodec.graph.operators import OPERATORS, WORDS, is_word
from nnrcodec.graph.operators_torch import FUNCTIONS, NAMES, TORCH_WORDS

SPEC = Path(__file__).parents[2] / "spec" / "graph.md"
LEFT_OUT = {"device", "layout", "pin_memory", "generator"}
ATEN = sorted(name for name in OPERATORS if name.startswith("aten."))


def test_list_and_functions_correspond_one_to_one():
    assert set(FUNCTIONS) == set(OPERATORS)
    assert len(NAMES) == len(FUNCTIONS)
    assert {NAMES[function] for function in FUNCTIONS.values()} == set(OPERATORS)


@pytest.mark.parametrize("name", ATEN)
def test_declaration_agrees_with_pytorch(name):
    operator, schema = OPERATORS[name], FUNCTIONS[name]._schema
    assert str(FUNCTIONS[name]) == name
    expected = [a for a in schema.arguments if a.name not in LEFT_OUT]
    assert [p.name for p in operator.parameters] == [a.name for a in expected]
    for parameter, argument in zip(operator.parameters, expected, strict=True):
        assert (parameter in operator.keyword_only) == argument.kwarg_only
        assert parameter.has_default == argument.has_default_value()
        assert written_kind(parameter) == torch_kind(schema, argument.name, parameter.kind)
    for argument in schema.arguments:
        assert argument.name not in LEFT_OUT or argument.has_default_value()


def written_kind(parameter):
    kind = parameter.kind + "?" * parameter.item_nullable
    return kind + "[]" * parameter.is_list + "?" * parameter.nullable


def torch_kind(schema, argument, kind):
    """Return how we write the type in a schema, given the narrower kind we chose."""
    pattern = rf"(\w+)(?:\([a-z][^()]*\))?(\?)?(\[\d*\])?(\?)? {argument}\b"
    name, first, is_list, last = re.search(pattern, str(schema)).groups(default="")
    narrower = {
        "ScalarType": {"dtype"},
        "MemoryFormat": {"memory_format"},
        "Tensor": {"Tensor", "Operand"},
        "float": {"float", "zero"},
        "bool": {"bool", "false"},
        "str": {*WORDS, "equation"},
    }
    assert kind in narrower.get(name, {name})
    return kind + first + "[]" * bool(is_list) + last


@pytest.mark.parametrize("name", ATEN)
def test_only_operators_with_an_underscore_write(name):
    schema = FUNCTIONS[name]._schema
    written = [a.name for a in schema.arguments if a.alias_info and a.alias_info.is_write]
    first = OPERATORS[name].positional[0].name
    assert written == ([first] if OPERATORS[name].writes_in_place else [])


@pytest.mark.parametrize("name", ATEN)
def test_result_is_declared_as_pytorch_returns_it(name):
    results = [str(r.type) for r in FUNCTIONS[name]._schema.returns]
    if OPERATORS[name].result == "Tensor":
        assert results == ["Tensor"]
    elif OPERATORS[name].result == "Tensor[]":
        assert results == ["List[Tensor]"] or (len(results) > 1 and set(results) == {"Tensor"})
    else:
        assert results in (["int"], ["SymInt"])


def test_no_operator_is_random():
    random = {name for name in ATEN if torch.Tag.nondeterministic_seeded in FUNCTIONS[name].tags}
    only_in_training = {"zero", "false"}
    for name in random:
        kinds = {parameter.kind for parameter in OPERATORS[name].parameters}
        assert kinds & only_in_training, name


def test_makers_of_tensors_take_a_device():
    for name in ATEN:
        if OPERATORS[name].makes_tensor:
            assert "device" in {a.name for a in FUNCTIONS[name]._schema.arguments}


def test_words_have_objects():
    for kind, words in TORCH_WORDS.items():
        assert set(words) == WORDS[kind]


@pytest.mark.parametrize("equation", ["ij,jk->ik", "b...i , ji -> b...j", "ii"])
def test_equations_are_words(equation):
    assert is_word("equation", equation)


@pytest.mark.parametrize("equation", ["", "ij;k", "__import__('os')", "a" * 201, "a-b", "a>b"])
def test_other_strings_are_no_equations(equation):
    assert not is_word("equation", equation)


def test_specification_lists_the_operators():
    assert f"```\n{TABLE.strip()}\n```" in SPEC.read_text()


def test_specification_lists_the_words():
    text = SPEC.read_text()
    for kind, words in WORDS.items():
        if kind != "dtype":
            listed = ", ".join(f"`{word}`" for word in sorted(words))
            assert f"* `{kind}`: {listed}" in text
