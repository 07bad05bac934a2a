"""Networks by others as modules, with the names that their published weights have."""

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
