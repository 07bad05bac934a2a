"""What a loss is, for each kind of output.

Losses compare a decoded network's outputs with the original's on the same inputs. More is worse:
dB of PSNR, percent of accuracy and so on are what is *lost*; only of a cosine less is worse.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch.nn import functional

Outputs = Sequence[Sequence[torch.Tensor]]
"""Of one call after the other, all tensors that the network returns."""

Loss = Callable[[Outputs, Outputs], Mapping[str, float]]
"""Takes the original's outputs and the decoded network's."""


def psnr_loss(wanted: Sequence[torch.Tensor]) -> Loss:
    """Compare with what the pictures should be, after rounding to 8 bits."""

    def psnr(outputs: Outputs) -> torch.Tensor:
        errors = [
            (_rounded(output[0][:, : picture.shape[1]]) - _rounded(picture)).square().mean()
            for output, picture in zip(outputs, wanted, strict=True)
        ]
        return 10 * torch.log10(255**2 / torch.stack(errors))

    def loss(original: Outputs, decoded: Outputs) -> dict[str, float]:
        lost = psnr(original) - psnr(decoded)
        return {"dB": float(lost.mean()), "dB worst": float(lost.max())}

    return loss


def accuracy_loss(labels: torch.Tensor) -> Loss:
    """Count right answers, and those that have changed."""

    def loss(original: Outputs, decoded: Outputs) -> dict[str, float]:
        before, after = (_answers(outputs) == labels for outputs in (original, decoded))
        lost = 100 * float(before.double().mean() - after.double().mean())
        return {"% accuracy": lost, **decision_loss(original, decoded)}

    return loss


def decision_loss(original: Outputs, decoded: Outputs) -> dict[str, float]:
    """Count answers that have changed."""
    changed = _answers(original) != _answers(decoded)
    return {"% changed": 100 * float(changed.double().mean())}


def _answers(outputs: Outputs) -> torch.Tensor:
    return torch.cat([output[0] for output in outputs]).argmax(1)


def detection_loss(scores: Callable[[Sequence[torch.Tensor]], torch.Tensor], limit: float) -> Loss:
    """Count places whose score is above a limit before, after, and both."""

    def loss(original: Outputs, decoded: Outputs) -> dict[str, float]:
        before, after = (
            torch.cat([(scores(output) > limit).flatten() for output in outputs])
            for outputs in (original, decoded)
        )
        total = int(before.sum())
        return {
            "detections": total,
            "% lost": 100 * int((before & ~after).sum()) / total,
            "% added": 100 * int((after & ~before).sum()) / total,
        }

    return loss


def pitch_loss(original: Outputs, decoded: Outputs) -> dict[str, float]:
    """Count windows with voice whose pitch has moved by more than 40 cents, two bins."""
    before, after = (
        torch.cat([output[0] for output in outputs]) for outputs in (original, decoded)
    )
    voiced = before.amax(1) > 0.5
    moved = (before.argmax(1) - after.argmax(1)).abs()[voiced] > 2
    return {"windows": int(voiced.sum()), "% changed": 100 * float(moved.double().mean())}


def embedding_loss(original: Outputs, decoded: Outputs) -> dict[str, float]:
    """Compare directions, and nearest neighbours."""
    before, after = (
        torch.cat([output[0] for output in outputs]).double() for outputs in (original, decoded)
    )
    cosines = functional.cosine_similarity(before, after)
    neighbours = [_nearest(values, before) for values in (before, after)]
    return {
        "cosine": float(cosines.mean()),
        "cosine min": float(cosines.min()),
        "relative error": float((before - after).norm() / before.norm()),
        "% neighbours changed": 100 * float((neighbours[0] != neighbours[1]).double().mean()),
    }


def _nearest(values: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return of each embedding which one of the others is nearest, itself excluded."""
    return (values @ others.T).fill_diagonal_(-1).argmax(1)


def _rounded(picture: torch.Tensor) -> torch.Tensor:
    """Return the values in which 8-bit pictures are stored."""
    return picture.clamp(0, 1).mul(255).round()
