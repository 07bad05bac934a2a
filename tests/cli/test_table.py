from nnrcodec.cli.table import counted, grouped, printable, table


def test_columns_are_aligned_to_their_side():
    lines = list(table((">bytes", "<name"), [("5", "head.weight"), ("123,456", "b")]))
    assert lines == ["  bytes  name", "      5  head.weight", "123,456  b"]


def test_a_table_without_rows_has_headings():
    assert list(table((">bytes", "<name"), [])) == ["bytes  name"]


def test_numbers():
    assert grouped(1234567) == "1,234,567"
    assert counted(1, "tensor") == "1 tensor"
    assert counted(0, "tensor") == "0 tensors"


def test_what_could_move_the_cursor_is_escaped():
    assert printable("größe ☃") == "größe ☃"
    assert printable("a\x1b[2J\n\u202eb") == r"a\x1b[2J\n\u202eb"
