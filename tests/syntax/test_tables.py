"""The syntax functions, their records and ``spec/tables``."""

import ast
import inspect
from dataclasses import fields, is_dataclass

import pytest
from syntax.streams import REPOSITORY

from nnrcodec.syntax import unit
from nnrcodec.syntax.clauses import CLAUSES, record_of, render
from nnrcodec.syntax.unit import UNIT_SYNTAX

TABLES = REPOSITORY / "spec" / "tables"
FUNCTIONS = [function for _, function in CLAUSES]


def test_the_tables_are_those_of_the_source():
    assert unit.UNIT_SYNTAX
    expected = render()
    assert {file.name for file in TABLES.glob("*.md")} == set(expected)
    for name, text in expected.items():
        message = f"{name} differs: python -m nnrcodec.syntax spec/tables"
        assert (TABLES / name).read_text(encoding="utf-8") == text, message


def test_titles_are_unique():
    assert len({title for title, _ in CLAUSES}) == len(CLAUSES)


@pytest.mark.parametrize("record", {record_of(f): None for f in FUNCTIONS})
def test_every_field_of_a_record_is_coded_by_its_functions(record):
    assert is_dataclass(record)
    coded = set()
    for function in FUNCTIONS:
        if record_of(function) is not record:
            continue
        for node in ast.walk(ast.parse(inspect.getsource(function))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("s."):
                arguments = [ast.unparse(a) for a in node.args]
                if len(arguments) > 1 and arguments[0] == "h":
                    coded.add(ast.literal_eval(arguments[1]))
    assert coded == {field.name for field in fields(record)}


def test_every_unit_function_is_registered():
    for row in UNIT_SYNTAX.values():
        assert set(row.tables) <= set(FUNCTIONS)
