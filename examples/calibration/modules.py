"""Networks by others as modules, with the names that their published weights have."""

import itertools

import torch
from torch import nn
from torch.nn import functional


class SentenceEncoder(nn.Module):
    """BERT with mean pooling, of the size of MiniLM-L6: 6 layers, 384 channels, 12 heads.

    J. Devlin et al., "BERT", NAACL 2019; W. Wang et al., "MiniLM", NeurIPS 2020; N. Reimers,
    I. Gurevych, "Sentence-BERT", EMNLP 2019.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(30522, 384),
                "position_embeddings": nn.Embedding(512, 384),
                "token_type_embeddings": nn.Embedding(2, 384),
                "LayerNorm": nn.LayerNorm(384, eps=1e-12),
            }
        )
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(BertLayer() for _ in range(6))})

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return an embedding of length 1 for each row of tokens; the mask is 0 at padding."""
        parts, positions = self.embeddings, torch.arange(ids.shape[1])
        x = parts["word_embeddings"](ids) + parts["position_embeddings"](positions)
        x = parts["LayerNorm"](x + parts["token_type_embeddings"](torch.zeros_like(ids)))
        kept = mask.to(x.dtype)
        for layer in self.encoder["layer"]:
            x = layer(x, (1 - kept)[:, None, None] * -1e9)
        return functional.normalize((x * kept[:, :, None]).sum(1))


class BertLayer(nn.Module):
    """Attention and two linear layers, each added to its input and normalized."""

    def __init__(self) -> None:
        super().__init__()
        names = ("query", "key", "value")
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict({name: nn.Linear(384, 384) for name in names}),
                "output": _with_norm(384),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(384, 1536)})
        self.output = _with_norm(1536)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Run the layer; the mask is added to the logits of the attention."""
        own = self.attention["self"]
        query, key, value = (
            own[name](x).unflatten(2, (12, 32)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        found = functional.scaled_dot_product_attention(query, key, value, mask)
        output = self.attention["output"]
        x = output["LayerNorm"](x + output["dense"](found.transpose(1, 2).flatten(2)))
        y = self.output["dense"](functional.gelu(self.intermediate["dense"](x)))
        return self.output["LayerNorm"](x + y)


def _with_norm(inputs: int) -> nn.ModuleDict:
    return nn.ModuleDict(
        {"dense": nn.Linear(inputs, 384), "LayerNorm": nn.LayerNorm(384, eps=1e-12)}
    )


class SpeakerEncoder(nn.Module):
    """Three LSTM layers that tell who speaks; takes mel spectrograms (n, frames, 40).

    L. Wan et al., "Generalized end-to-end loss for speaker verification", ICASSP 2018.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels: torch.Tensor) -> torch.Tensor:
        """Return an embedding of length 1 for each spectrogram."""
        _, (hidden, _) = self.lstm(mels)
        return functional.normalize(self.linear(hidden[-1]).relu())


class NokiaPostFilter(nn.Module):
    """A post-filter for VVC with a factor for each channel, which overfitting to a clip changes.

    Takes (n, 7, height, width): four phases of luma, two chroma planes, QP. Unlike the published
    graph it returns the whole picture, without cropping 4 rows and columns off each side.
    """

    def __init__(self) -> None:
        super().__init__()
        layers = [(7, 72, 3), (72, 72, 1), (72, 24, 1), (24, 24, 3)]
        layers += [(24, 72, 1), (72, 24, 1), (24, 24, 3)] * 10 + [(24, 6, 3)]
        for number, (inputs, outputs, size) in enumerate(layers, 1):
            setattr(self, f"_conv{number}", nn.Conv2d(inputs, outputs, size, padding=size // 2))
            setattr(self, f"_multiplier{number}", Multiplier(outputs))
        self.count = len(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return luma and chroma."""
        y = x
        for number in range(1, self.count + 1):
            y = getattr(self, f"_multiplier{number}")(getattr(self, f"_conv{number}")(y))
            if y.shape[1] == 72:
                y = functional.leaky_relu(y, 0.2)
        return x[:, :6] + y


class Multiplier(nn.Module):
    """A factor for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self._multiplier = nn.Parameter(torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Multiply."""
        return x * self._multiplier[:, None, None]


class PNet(nn.Module):
    """First stage of MTCNN: faces of 12x12 pixels everywhere in a picture.

    K. Zhang et al., "Joint face detection and alignment using multitask cascaded convolutional
    networks", IEEE Signal Processing Letters 23, 2016.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return probabilities and boxes."""
        x = functional.max_pool2d(self.prelu1(self.conv1(x)), 2, 2, ceil_mode=True)
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_1(x).softmax(1), self.conv4_2(x)


class RNet(nn.Module):
    """Second stage of MTCNN, which looks at 24x24 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return probabilities and boxes."""
        x = functional.max_pool2d(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)
        x = functional.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = self.prelu3(self.conv3(x))
        x = self.prelu4(self.dense4(x.permute(0, 3, 2, 1).flatten(1)))
        return self.dense5_1(x).softmax(1), self.dense5_2(x)


class ONet(nn.Module):
    """Third stage of MTCNN, which looks at 48x48 pixels and also finds eyes, nose and mouth."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2 = nn.Linear(256, 2), nn.Linear(256, 4)
        self.dense6_3 = nn.Linear(256, 10)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return probabilities, boxes, and where the parts of faces are."""
        x = functional.max_pool2d(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)
        x = functional.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = functional.max_pool2d(self.prelu3(self.conv3(x)), 2, 2, ceil_mode=True)
        x = self.prelu4(self.conv4(x))
        x = self.prelu5(self.dense5(x.permute(0, 3, 2, 1).flatten(1)))
        return self.dense6_1(x).softmax(1), self.dense6_2(x), self.dense6_3(x)


class Crepe(nn.Module):
    """The tiny CREPE: pitch, in 360 bins of 20 cents, of 1024 samples at 16 kHz.

    J. W. Kim et al., "CREPE: a convolutional representation for pitch estimation", ICASSP 2018.
    """

    def __init__(self) -> None:
        super().__init__()
        channels = (1, 128, 16, 16, 16, 32, 64)
        for number, (inputs, outputs) in enumerate(itertools.pairwise(channels), 1):
            size, stride = (512, 4) if number == 1 else (64, 1)
            conv = nn.Conv2d(inputs, outputs, (size, 1), (stride, 1))
            setattr(self, f"conv{number}", conv)
            setattr(self, f"conv{number}_BN", nn.BatchNorm2d(outputs, eps=1e-3))
        self.classifier = nn.Linear(256, 360)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the probability of each bin."""
        x = x[:, None, :, None]
        for number in range(1, 7):
            x = functional.pad(x, (0, 0, 254, 254) if number == 1 else (0, 0, 31, 32))
            x = getattr(self, f"conv{number}")(x).relu()
            x = functional.max_pool2d(getattr(self, f"conv{number}_BN")(x), (2, 1))
        return self.classifier(x.permute(0, 2, 1, 3).flatten(1)).sigmoid()


class VoiceDetector(nn.Module):
    """Silero VAD at 16 kHz: a transform, four convolutions and an LSTM.

    Takes (n, windows, 576): 64 samples that have been, and 512 new ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, 128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, 2, 1)
        self.conv3 = nn.Conv1d(64, 64, 3, 2, 1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128, batch_first=True)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        """Return how likely each window has speech."""
        windows = functional.pad(samples.flatten(0, 1), (0, 64), "reflect")[:, None]
        real, imaginary = self.stft_conv(windows).chunk(2, 1)
        x = (real.square() + imaginary.square()).sqrt()
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = conv(x).relu()
        x, _ = self.lstm(x.squeeze(2).unflatten(0, samples.shape[:2]))
        return self.final_conv(x.relu().transpose(1, 2)).sigmoid().squeeze(1)


class Restorer(nn.Module):
    """A chain of convolutions that finds what is wrong with a picture, as DnCNN and VDSR."""

    def __init__(self, layers: int = 10, channels: int = 32) -> None:
        super().__init__()
        sizes = itertools.pairwise((1, *[channels] * (layers - 1), 1))
        self.layers = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in sizes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the picture without it."""
        y = x
        for layer in self.layers[:-1]:
            y = layer(y).relu()
        return x - self.layers[-1](y)


class MiniXception(nn.Module):
    """Tells seven emotions of gray faces of 64x64 pixels; layers have the names that Keras gave.

    O. Arriaga et al., "Real-time convolutional neural networks for emotion and gender
    classification", ESANN 2019.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv2d_1 = nn.Conv2d(1, 8, 3, bias=False)
        self.conv2d_2 = nn.Conv2d(8, 8, 3, bias=False)
        channels = (8, 16, 32, 64, 128)
        for number, (inputs, outputs) in enumerate(itertools.pairwise(channels), 1):
            shortcut = nn.Conv2d(inputs, outputs, 1, 2, bias=False)
            setattr(self, f"conv2d_{number + 2}", shortcut)
            for part, taken in enumerate((inputs, outputs), 2 * number - 1):
                depthwise = nn.Conv2d(taken, taken, 3, padding=1, groups=taken, bias=False)
                pointwise = nn.Conv2d(taken, outputs, 1, bias=False)
                setattr(self, f"separable_conv2d_{part}", nn.Sequential(depthwise, pointwise))
        self.conv2d_7 = nn.Conv2d(128, 7, 3, padding=1)
        norms = (8, 8, *(size for size in channels[1:] for _ in range(3)))
        for number, size in enumerate(norms, 1):
            setattr(self, f"batch_normalization_{number}", nn.BatchNorm2d(size, eps=1e-3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the probability of each."""
        x = self._run("conv2d", 1, x, 1).relu()
        x = self._run("conv2d", 2, x, 2).relu()
        for block in range(1, 5):
            shortcut = self._run("conv2d", block + 2, x, 3 * block)
            y = self._run("separable_conv2d", 2 * block - 1, x, 3 * block + 1).relu()
            y = self._run("separable_conv2d", 2 * block, y, 3 * block + 2)
            odd = y.shape[2] % 2
            y = functional.pad(y, (odd, 1, odd, 1), value=float("-inf"))
            x = functional.max_pool2d(y, 3, 2) + shortcut
        return self.conv2d_7(x).mean((2, 3)).softmax(1)

    def _run(self, kind: str, number: int, x: torch.Tensor, norm: int) -> torch.Tensor:
        return getattr(self, f"batch_normalization_{norm}")(getattr(self, f"{kind}_{number}")(x))
