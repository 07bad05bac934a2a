import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from nnrcodec.errors import ConfigError
from nnrcodec.evaluate import Score, write_report
from nnrcodec.evaluate.report import check_folder

EMPTY = {"meta"}
"""Elements without an end tag."""


class Page(HTMLParser):
    """What is on a page: elements, attributes and text; every end tag must fit."""

    def __init__(self, content):
        super().__init__()
        self.open, self.elements, self.attributes, self.text = [], Counter(), [], []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements[tag] += 1
        self.attributes += attributes
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements[tag] += 1
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def page_of(evaluation, folder):
    return Page(write_report(evaluation, folder).read_text(encoding="utf-8"))


def test_the_page_shows_everything(timed, tmp_path):
    path = write_report(timed, tmp_path / "new" / "page")
    assert path == tmp_path / "new" / "page" / "index.html"
    assert list(path.parent.iterdir()) == [path]
    page = Page(path.read_text(encoding="utf-8"))
    said = " ".join(page.text)
    assert page.elements["svg"] == 5  # size, run time, by QP, two spectra
    for words in (
        *("original", "plain", "thin", "no filter", "first", "last"),
        *("lake", "tree", "lake, 22", "tree, 37", "together", "by QP", "by picture"),
        *("thin: 2 (", "thin: 3 (", "R 2", "R 3", "kMAC/pixel", "quartiles", timed.machine),
        *(f"{n.coded_bytes:,}" for n in timed.coded),
        *(f"{n.score.groups['picture, QP']['tree, 37']:.3f}" for n in timed.networks),
        *(f"{n.layer_bytes['first']:,}" for n in timed.networks),
    ):
        assert words in said, words


def test_the_page_refers_to_nothing_outside_and_runs_nothing(timed, tmp_path):
    content = write_report(timed, tmp_path).read_text(encoding="utf-8")
    page = Page(content)
    assert not page.elements.keys() & {"script", "link", "img", "iframe", "object", "a"}
    assert not {name for name, _ in page.attributes} & {"src", "href", "srcset", "action"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import|https?:", content)


def test_every_class_of_a_network_has_a_colour(timed, tmp_path):
    content = write_report(timed, tmp_path).read_text(encoding="utf-8")
    style = content.partition("<style>")[2].partition("</style>")[0]
    for kind in set(re.findall(r'class="(?:[a-z]+ )?(s\d)"', content)):
        for use in (".dot", ".key", ".bar", "line"):
            assert f"{use}.{kind}" in style
        assert style.count(f"--{kind}: #") == 2  # on light and on dark paper


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=y>',
    "</svg></table>&lt;",
    "\udcff\x00",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_only_text(timed, tmp_path, name):
    networks = [
        replace(
            n,
            label=f"{name}{k}",
            layer_bytes={name: 3},
            ranks={name: 2},
            score=replace(n.score, groups={name: {name: 1.0}, "QP": {"22": 1.0, "37": 2.0}}),
        )
        for k, n in enumerate(timed.networks)
    ]
    spectrum = replace(timed.spectra[0], layer=name, scheme=name, ranks={f"{name}1": 2})
    changed = replace(
        timed,
        name=name,
        task=name,
        networks=tuple(networks),
        baseline=replace(timed.baseline, groups=networks[0].score.groups),
        spectra=(spectrum,),
        machine=name,
        notes=(name,),
    )
    plain, hostile = page_of(timed, tmp_path / "plain"), page_of(changed, tmp_path / "hostile")
    assert hostile.elements.keys() <= plain.elements.keys()
    assert {name for name, _ in hostile.attributes} <= {name for name, _ in plain.attributes}
    if name.isprintable():
        assert "".join(hostile.text).count(name) > 10


def test_long_names_are_numbers_in_plots(timed, tmp_path):
    longer = tuple(replace(n, label=f"{n.label} of the filter") for n in timed.coded)
    spectra = tuple(replace(s, ranks={longer[1].label: 2}) for s in timed.spectra)
    page = page_of(replace(timed, networks=(timed.original, *longer), spectra=spectra), tmp_path)
    assert "thin of the filter" in page.text
    assert any(re.fullmatch(r"2: 2 \(\d+\.\d %\)", text) for text in page.text)


def test_one_stream_without_a_task_has_tables_only(timed, tmp_path):
    networks = [
        replace(n, score=None, run_seconds=None, run_memory=None, multiply_adds=None, ranks={})
        for n in timed.networks[:2]
    ]
    bare = replace(
        timed,
        networks=tuple(networks),
        spectra=(),
        task=None,
        baseline=None,
        input_shapes=(),
        notes=("networks did not run",),
    )
    page = page_of(bare, tmp_path)
    assert page.elements["svg"] == 0
    assert page.elements["table"] == 3
    assert "Networks did not run." in page.text


def test_scores_that_are_not_finite_are_not_plotted(timed, tmp_path):
    scores = [Score(float("inf"), "dB SNR"), Score(40.0, "dB SNR"), Score(float("nan"), "dB SNR")]
    networks = tuple(
        replace(n, score=score) for n, score in zip(timed.networks, scores, strict=True)
    )
    evaluation = replace(timed, networks=networks, baseline=None, spectra=())
    assert page_of(evaluation, tmp_path).elements["svg"] == 0
    third = replace(timed.networks[2], label="more", score=Score(30.0, "dB SNR"))
    page = page_of(replace(evaluation, networks=(*networks, third)), tmp_path)
    assert page.elements["svg"] == 2
    assert {"equal", "not a number"} <= set(page.text)


def test_many_layers_and_many_pictures_are_folded_away(timed, tmp_path):
    layers = {f"layer {k}": k for k in range(60)}
    pictures = {f"picture {k}": 30.0 for k in range(20)}
    networks = tuple(
        replace(n, layer_bytes=layers, score=replace(n.score, groups={"picture": pictures}))
        for n in timed.networks
    )
    page = page_of(replace(timed, networks=networks, baseline=None), tmp_path)
    assert page.elements["details"] == 2
    assert "62 rows" in page.text
    assert {"layer 59", "picture 19"} <= set(page.text)


def test_a_report_is_replaced_and_nothing_else_touched(timed, tmp_path):
    (tmp_path / "index.html").write_text("old")
    (tmp_path / "mine.txt").write_text("mine")
    write_report(timed, tmp_path)
    assert (tmp_path / "index.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "mine.txt"}


def test_folders_that_cannot_be(timed, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "page"):
        with pytest.raises(ConfigError, match="file is not a folder"):
            write_report(timed, folder)
    with pytest.raises(ConfigError, match="File name too long"):
        write_report(timed, tmp_path / ("n" * 300))
    check_folder(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ConfigError, match="write-protected"):
        check_folder(tmp_path / "new")
