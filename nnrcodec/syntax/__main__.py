"""Write the syntax tables into a folder: ``python -m nnrcodec.syntax spec/tables``."""

import sys
from pathlib import Path

from nnrcodec.syntax import unit  # noqa: F401 - it imports all tables
from nnrcodec.syntax.clauses import render

for name, text in render().items():
    (Path(sys.argv[1]) / name).write_text(text, encoding="utf-8")
