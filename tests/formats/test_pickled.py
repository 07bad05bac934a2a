import io
import pickle
import pickletools
from collections import OrderedDict, defaultdict

import pytest

from nnrcodec.formats.pickled import Name, PickleError, Thing, read_pickle

PLAIN = {
    "a": [1, -3, 2**70, 2.5, None, True, "text", b"bytes", (1,), (), (1, 2, 3, 4)],
    "b": OrderedDict([("x", {1: "one", (2, "b"): "two"})]),
    "c": {1, 2, 3},
    "d": 1 + 2j,
    "long": "x" * 300,
    "tuple of lists": ([], [[]]),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_read_as_pickle_reads_them(protocol):
    assert read_pickle(pickle.dumps(PLAIN, protocol)) == PLAIN


def test_shared_values_stay_shared_and_a_defaultdict_is_a_dict():
    part = [1]
    shared = read_pickle(pickle.dumps([part, part, defaultdict(list, a=part)], 2))
    assert shared[0] is shared[1] is shared[2]["a"]
    assert type(shared[2]) is dict


class Calls:
    def __reduce__(self):
        return exec, ("raise SystemExit",)


class Own:
    def __init__(self):
        self.value = 3


class OwnDict(dict):
    pass


def test_nothing_is_called_and_no_class_is_built():
    called = read_pickle(pickle.dumps([Calls()]))[0]
    assert isinstance(called, Thing)
    assert (str(called.maker), called.args) == ("builtins.exec", ("raise SystemExit",))
    own, own_dict = read_pickle(pickle.dumps([Own(), OwnDict(a=1)], 2))
    assert own.state == {"value": 3}
    assert own.maker == Name("copy_reg", "_reconstructor") or own.maker.name == "Own"
    assert own_dict.items == {"a": 1}


def test_several_pickles_in_a_file_are_read_one_after_the_other():
    file = io.BytesIO(pickle.dumps([1]) + pickle.dumps("two") + b"rest")
    assert (read_pickle(file), read_pickle(file), file.read()) == ([1], "two", b"rest")


def bomb(inner: bytes, levels: int) -> bytes:
    """Return a pickle of tuples of tuples, each of them twice in the next one."""
    return b"\x80\x02)" + b"q\x00h\x00\x86" * levels + inner


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b".",
        b"N",
        b"\x80\x04}(K\x01.",
        b"(.",
        b"0.",
        b"h\x05.",
        b"\x80\x02}]K\x01s.",  # a list as a key
        bomb(b"q\x01}h\x01K\x01s.", 60),  # a key that would take for ever to hash
        b"\x82\x01.",  # an extension
        b"cos\nsystem\n)R)R(lR.",
        b"X\xff\xff\xff\x7fabc.",
        b"\x8a\xff" + b"\xff" * 10,
        b"I" + b"9" * 5000 + b"\n.",
        b"\x80\x02]q\x00h\x00K\x01s.",
        b"(" * 100_000,
        b"\x80\x02ccollections\nOrderedDict\n]\x85R(K\x01u.",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.",
    ],
    ids=range(18),
)
def test_damaged_and_hostile_pickles_are_errors_soon(data):
    with pytest.raises(PickleError):
        read_pickle(data)


def test_every_operation_of_the_language_is_known_or_refused():
    for operation in pickletools.opcodes:
        try:
            read_pickle(operation.code.encode("latin1") + b"\x00" * 12)
        except PickleError:
            continue
