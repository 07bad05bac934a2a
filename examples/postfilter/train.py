"""Train the post-filter on pairs of decoded and original pictures, on the CPU.

Owns sampling, loss, schedule and the files it writes: ``filter.safetensors`` (float32 weights) and
``filter.pt2`` (the same network exported with dynamic height and width). The pairs come from
``make_pairs.py``. Validation is only reported: the result is the average of the weights at the
last step, whatever the validation said.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from evaluate import FOLDER, Pair, load_filter, load_pairs, mean_gain, score_pairs
from model import PostFilter
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

PATCH_SIZE = 64
BATCH_SIZE = 16
LEARNING_RATE = 1e-3
# The residual is about a hundredth of the features it is made of. At the full rate, Adam's steps of
# equal size in the last layer would change the picture more than the codec did.
LAST_LAYER_FACTOR = 0.05
WARM_UP_STEPS = 50
# The rate stays what it is, and the result is the average over about the last 500 steps. Letting
# the rate fall instead fits the training pictures better and photographs of other kinds worse: by
# 0.02 dB after 7200 steps.
EMA_DECAY = 0.998
GRADIENT_NORM = 1.0
# Added to the squared error in 8-bit units so that almost lossless pictures do not dominate.
ERROR_FLOOR = 0.5


class PatchSampler:
    """Draw random patches with their loss weights.

    A picture is drawn in proportion to its area and a QP uniformly; the patch is flipped and turned
    at random. The weight is the reciprocal of the squared error of the decoded picture: the loss is
    then the factor by which the filter changes the error, and its gradient that of the mean PSNR.

    Parameters
    ----------
    pairs : list of Pair
        The training pictures.
    rng : Generator
        Source of all randomness.
    """

    def __init__(self, pairs: list[Pair], rng: np.random.Generator) -> None:
        self._rng = rng
        self._pairs = pairs
        areas = np.array([pair.original.size for pair in pairs], np.float64)
        self._probabilities = areas / areas.sum()
        self._errors = [
            {
                qp: float(np.mean((decoded.astype(np.float64) - pair.original) ** 2)) + ERROR_FLOOR
                for qp, decoded in pair.decoded.items()
            }
            for pair in pairs
        ]

    def draw_patch(self) -> tuple[np.ndarray, float]:
        """Draw decoded and original patch, uint8 of shape (2, size, size), and the error."""
        index = int(self._rng.choice(len(self._pairs), p=self._probabilities))
        pair = self._pairs[index]
        qp = int(self._rng.choice(list(pair.decoded)))
        height, width = pair.original.shape
        top = int(self._rng.integers(height - PATCH_SIZE + 1))
        left = int(self._rng.integers(width - PATCH_SIZE + 1))
        area = np.s_[top : top + PATCH_SIZE, left : left + PATCH_SIZE]
        patch = np.stack([pair.decoded[qp][area], pair.original[area]])
        patch = np.rot90(patch, int(self._rng.integers(4)), axes=(1, 2))
        if self._rng.integers(2):
            patch = patch[:, :, ::-1]
        return patch, self._errors[index][qp]

    def draw_batch(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draw a batch.

        Returns
        -------
        decoded, original : Tensor of float32, shape (n, 1, size, size)
            Luma, 0..1.
        weight : Tensor of float32, shape (n, 1, 1, 1)
            Factor of the squared error.
        """
        patches, errors = zip(*(self.draw_patch() for _ in range(BATCH_SIZE)), strict=True)
        batch = torch.from_numpy(np.stack(patches)).float() / 255
        weight = 255**2 / torch.tensor(errors, dtype=torch.float32)
        return batch[:, :1], batch[:, 1:], weight[:, None, None, None]


def batch_loss(
    model: PostFilter, batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Compute the weighted squared error of a batch.

    All layers but the first run in bfloat16, which is twice as fast where the CPU has it. The first
    runs in float32: bfloat16 cannot hold 8-bit samples above 1/2 exactly.
    """
    decoded, original, weight = batch
    features = model.net[0](decoded.contiguous(memory_format=torch.channels_last))
    with torch.autocast("cpu", torch.bfloat16):
        residual = model.net[1:](features)
    return (weight * (decoded + residual.float() - original) ** 2).mean()


def train(
    pairs: list[Pair], validation: list[Pair], steps: int, seed: int, report_every: int
) -> PostFilter:
    """Train a filter.

    Parameters
    ----------
    pairs, validation : list of Pair
        Pictures to train on, and pictures only to report on.
    steps : int
        Number of batches.
    seed : int
        Seed of weights and batches.
    report_every : int
        Steps between two reports.

    Returns
    -------
    PostFilter
        The filter with the moving average of its weights.
    """
    torch.manual_seed(seed)
    sampler = PatchSampler(pairs, np.random.default_rng(seed))
    model = PostFilter().to(memory_format=torch.channels_last)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
    optimizer = torch.optim.Adam(
        [
            {"params": model.net[:-1].parameters(), "lr": LEARNING_RATE},
            {"params": model.net[-1].parameters(), "lr": LEARNING_RATE * LAST_LAYER_FACTOR},
        ]
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARM_UP_STEPS)
    )
    losses = []
    for step in tqdm(range(1, steps + 1), mininterval=60, maxinterval=120):
        loss = batch_loss(model, sampler.draw_batch())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        losses.append(loss.item())
        if step % report_every == 0 or step == steps:
            gain = mean_gain(score_pairs(average.module, validation))
            mean_loss = sum(losses) / len(losses)
            losses.clear()
            tqdm.write(f"step {step}: loss {mean_loss:.4f}, validation gain {gain:+.3f} dB")
    return average.module


def balance_layers(model: PostFilter) -> None:
    """Give the weights of all layers the same root mean square; what the filter computes stays.

    A ReLU passes a positive factor on, so what one layer is multiplied by, the next is divided by.
    Training leaves the last layer thousands of times smaller than the first, which would make one
    quantization step size for all layers meaningless.
    """
    layers = [layer for layer in model.net if isinstance(layer, torch.nn.Conv2d)]
    with torch.no_grad():
        scales = [float(layer.weight.square().mean().sqrt()) for layer in layers]
        common = math.exp(sum(math.log(scale) for scale in scales) / len(scales))
        factor = 1.0
        for layer, scale in zip(layers, scales, strict=True):
            factor *= common / scale
            layer.weight.mul_(common / scale)
            layer.bias.mul_(factor)


def save_filter(model: PostFilter, folder: Path) -> None:
    """Write ``filter.safetensors`` and ``filter.pt2`` and check that they agree.

    Raises
    ------
    RuntimeError
        When the exported program gives other pictures than the model.
    """
    model = model.to(memory_format=torch.contiguous_format).eval()
    balance_layers(model)
    save_file(model.state_dict(), folder / "filter.safetensors")
    dims = {axis: torch.export.Dim(n, min=1) for axis, n in ((0, "n"), (2, "height"), (3, "width"))}
    example = torch.zeros(2, 1, 48, 64)
    program = torch.export.export(model, (example,), dynamic_shapes={"x": dims})
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names the folders of this machine
    torch.export.save(program, folder / "filter.pt2")
    picture = torch.rand(1, 1, 56, 40)
    with torch.no_grad():
        expected = model(picture)
        for name in ("filter.safetensors", "filter.pt2"):
            if not torch.allclose(load_filter(folder / name)(picture), expected, atol=1e-6):
                raise RuntimeError(f"{name} differs from the trained model")


def main() -> None:
    """Train, report and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work",
        type=Path,
        default=Path(tempfile.gettempdir(), "postfilter"),
        help="folder with train/ from make_pairs.py (default: %(default)s)",
    )
    parser.add_argument(
        "--validation",
        type=Path,
        default=FOLDER / "eval",
        help="pairs for the reports (default: eval/ beside this script)",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=FOLDER,
        help="folder for filter.safetensors and filter.pt2 (default: the one of this script)",
    )
    parser.add_argument("--steps", type=int, default=5400, help="batches (default: 5400)")
    parser.add_argument("--seed", type=int, default=1, help="seed (default: 1)")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="CPU threads; others give another filter (default: 1)",
    )
    parser.add_argument(
        "--report-every", type=int, default=250, help="steps between reports (default: 250)"
    )
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    pairs = load_pairs(arguments.work / "train")
    validation = load_pairs(arguments.validation)
    wall, cpu = time.monotonic(), time.process_time()
    model = train(pairs, validation, arguments.steps, arguments.seed, arguments.report_every)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    print(f"{arguments.steps} steps: {wall / 60:.1f} min wall clock, {cpu / 60:.1f} min CPU time")
    save_filter(model, arguments.output)


if __name__ == "__main__":
    main()
