"""The post-filter network; this module owns its layers and nothing else.

Seven 3x3 convolutions, 1-64, five times 64-64 and 64-1, with ReLU between them, predict the
residual that is added to the decoded luma picture: 185 857 parameters, receptive field 15x15.
"""

import torch
from torch import nn

HIDDEN_CHANNELS = 64
HIDDEN_LAYERS = 5
DETAIL_GAIN = 4.0


class PostFilter(nn.Module):
    """Restore decoded luma pictures with a residual convolutional network.

    The convolutions are ``net.0``, ``net.2``, ... ``net.12``. The last one starts at zero, so that
    an untrained filter returns its input.

    Examples
    --------
    >>> picture = torch.rand(1, 1, 24, 40)
    >>> bool((PostFilter()(picture) == picture).all())
    True
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(1, HIDDEN_CHANNELS, 3, padding=1), nn.ReLU()]
        for _ in range(HIDDEN_LAYERS):
            layers += [nn.Conv2d(HIDDEN_CHANNELS, HIDDEN_CHANNELS, 3, padding=1), nn.ReLU()]
        layers.append(nn.Conv2d(HIDDEN_CHANNELS, 1, 3, padding=1))
        self.net = nn.Sequential(*layers)
        for layer in self.net:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        # What has to be corrected hangs on details, not on brightness: start with kernels
        # without mean, enlarged because details are small.
        with torch.no_grad():
            first = self.net[0].weight
            first.sub_(first.mean(dim=(2, 3), keepdim=True)).mul_(DETAIL_GAIN)
        nn.init.zeros_(self.net[-1].weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Filter decoded pictures.

        Parameters
        ----------
        x : Tensor of float32, shape (n, 1, height, width)
            Decoded luma, 0 (black) to 1 (white).

        Returns
        -------
        Tensor of float32, shape (n, 1, height, width)
            Filtered luma, not clipped.
        """
        return x + self.net(x)
