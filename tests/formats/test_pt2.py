import logging

import numpy as np
import pytest
import torch

from nnrcodec.errors import ConfigError, ModelError
from nnrcodec.formats import pt2
from nnrcodec.model.model import Model, Role, Tensor


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Conv2d(3, 4, 3, padding="same")
        self.norm = torch.nn.BatchNorm2d(4)
        self.tail = torch.nn.Conv2d(4, 3, 3, stride=2, padding=1, bias=False)

    def forward(self, image):
        return self.tail(torch.relu(self.norm(self.head(image))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture
def path(net, tmp_path):
    size = torch.export.Dim("size", min=8, max=64)
    program = torch.export.export(
        net, (torch.rand(1, 3, 16, 16),), dynamic_shapes={"image": {2: size, 3: size}}
    )
    torch.export.save(program, tmp_path / "net.pt2")
    return tmp_path / "net.pt2"


def test_a_network_is_loaded_with_its_graph(net, path):
    model = pt2.load(path)
    assert set(model.tensors) == set(net.state_dict())
    assert model.tensors["norm.running_mean"].role is Role.BUFFER
    assert model.tensors["norm.num_batches_tracked"].dtype == "int64"
    assert model.graph.nodes[0].op == "aten.conv2d.padding"
    np.testing.assert_array_equal(model.tensors["head.weight"].read(), net.head.weight.detach())


def test_what_is_saved_runs_without_this_package_at_other_sizes(net, path, tmp_path):
    pt2.save(pt2.load(path), tmp_path / "out.pt2")
    program = torch.export.load(tmp_path / "out.pt2")
    assert set(program.state_dict) == set(net.state_dict())
    image = torch.rand(1, 3, 24, 24)
    torch.testing.assert_close(program.module()(image), net(image))
    assert pt2.load(tmp_path / "out.pt2").graph.nodes == pt2.load(path).graph.nodes


def test_tensors_alone_cannot_be_saved(tmp_path):
    with pytest.raises(ConfigError, match=r"no graph.*\.safetensors"):
        pt2.save(Model.of([Tensor.of("a", np.ones(1))]), tmp_path / "m.pt2")


def test_other_files_and_damaged_ones_are_refused_quietly(path, tmp_path, caplog, capfd):
    torch.save({"a": torch.ones(1)}, tmp_path / "state.pt2")
    content = path.read_bytes()
    (tmp_path / "cut.pt2").write_bytes(content[: len(content) // 2])
    (tmp_path / "holed.pt2").write_bytes(content.replace(b"graph_module", b"graph_mXdule"))
    for name in ("state.pt2", "cut.pt2", "holed.pt2"):
        with pytest.raises(ModelError, match=f"{name} is damaged"):
            pt2.load(tmp_path / name)
    assert not caplog.records
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("torch.export").level == logging.NOTSET


def test_a_zip_file_that_python_cannot_take_apart_is_damaged(path):
    content = path.read_bytes()
    locator = content.rindex(b"PK\x06\x07") + 4
    path.write_bytes(content[:locator] + b"\1" + content[locator + 1 :])  # a second disk
    with pytest.raises(ModelError, match="is damaged"):
        pt2.load(path)
