import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import NETWORKS
from safetensors.torch import save_file

import nnrcodec
from nnrcodec.cli import decode, encode, evaluate, info
from nnrcodec.syntax.constants import NnrCompressedDataUnitPayloadType, NnrUnitType
from nnrcodec.syntax.data_unit import NnrCompressedDataUnitHeader
from nnrcodec.syntax.parameter_sets import NnrModelParameterSet, NnrStartUnit
from nnrcodec.syntax.unit import NnrUnitHeader, Unit, write_units

MAINS = {
    "nnr-encode": encode.main,
    "nnr-decode": decode.main,
    "nnr-info": info.main,
    "nnr-eval": evaluate.main,
}


class Result:
    """What a command left: its exit code and what it printed."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def call(capsys):
    """Run a command in this process."""

    def call(name, *arguments):
        capsys.readouterr()
        try:
            code = MAINS[name]([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def launch():
    """Run an installed command in a process of its own."""

    def launch(name, *arguments, text=True, env=None):
        command = [Path(sys.executable).with_name(name), *map(str, arguments)]
        env = {**os.environ, **(env or {})}
        done = subprocess.run(command, capture_output=True, text=text, env=env, timeout=300)
        return Result(done.returncode, done.stdout, done.stderr)

    return launch


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Return a folder with one small network in every format."""
    folder = tmp_path_factory.mktemp("models")
    (network,) = (network for network in NETWORKS if network.name == "plain_cnn")
    module = network.module()
    state = module.state_dict()
    torch.export.save(torch.export.export(module, (network.example(),)), folder / "net.pt2")
    torch.save(dict(state), folder / "net.pt")
    torch.save(dict(state), folder / "net.pth")
    save_file(state, folder / "net.safetensors")
    return folder


@pytest.fixture(scope="session")
def example(models):
    """Return the network of the example, a small one if it is not there."""
    path = Path(__file__).parents[2] / "examples/postfilter/filter.pt2"
    return path if path.exists() else models / "net.pt2"


@pytest.fixture(scope="session")
def state(models):
    """Return the state dict of the small network."""
    return torch.load(models / "net.pt", weights_only=True)


@pytest.fixture
def stream(state, tmp_path):
    """Return a stream file of the small network, without a graph."""
    path = tmp_path / "net.nnr"
    config = nnrcodec.EncoderConfig(entropy="ans")
    path.write_bytes(nnrcodec.encode(state, config=config))
    return path


@pytest.fixture
def foreign(tmp_path):
    """Return a stream file as other software writes it: no container record, a standard unit."""
    header = NnrCompressedDataUnitHeader(
        nnr_compressed_data_unit_payload_type=NnrCompressedDataUnitPayloadType.NNR_PT_RAW_FLOAT,
        topology_elem_id="fc.weight",
        input_parameters_present_flag=1,
        tensor_dimensions_flag=1,
        count_tensor_dimensions=2,
        tensor_dimensions=[3, 4],
    )
    units = [
        Unit(NnrUnitHeader(nnr_unit_type=NnrUnitType.NNR_STR), NnrStartUnit()),
        Unit(NnrUnitHeader(nnr_unit_type=NnrUnitType.NNR_MPS), NnrModelParameterSet()),
        Unit(
            NnrUnitHeader(nnr_unit_type=NnrUnitType.NNR_NDU), header, np.ones(12, "<f4").tobytes()
        ),
    ]
    path = tmp_path / "foreign.nnc"
    path.write_bytes(b"".join(write_units(units)))
    return path
