"""Nystrom attention: softmax attention through landmarks, linear in the number of tokens (Xiong et al., AAAI 2021).

arXiv 2102.03902
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_mil.models.heads import Dropout
from kd_mil.models.segments import at_least_float32


class NystromAttention(nn.Module):
    """Multi-head self-attention softmax(Q K') V, approximated by landmarks, plus a convolution of the values.

    With landmarks Q~, K~ (means of consecutive tokens) it is F A^+ B V, Eq. 13-15, of F = softmax(Q K~'),
    A = softmax(Q~ K~') and B = softmax(Q~ K'). No (tokens x landmarks) matrix is kept, so 50,000 tokens fit.
    Tokens are padded with zeros in front to a multiple of `landmarks`; as in the code TransMIL uses, the padding
    takes part in the attention.

    Args:
        width: E of the tokens, divisible by `heads`.
        heads: number of heads.
        landmarks: number of landmarks.
        pinv_iterations: steps of the iterative pseudo-inverse.
        dropout: of the output while training.
        exact_small: exact attention, without padding, where there are no more tokens than landmarks.
        residual_kernel: length of the convolution over the values, one kernel per head.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        landmarks: int,
        pinv_iterations: int,
        dropout: float,
        exact_small: bool,
        residual_kernel: int = 33,
    ) -> None:
        super().__init__()
        self.heads, self.landmarks, self.pinv_iterations = heads, landmarks, pinv_iterations
        self.exact_small, self.reach = exact_small, residual_kernel // 2
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.residual = nn.Conv2d(heads, heads, (residual_kernel, 1), padding=(self.reach, 0), groups=heads, bias=False)
        self.output = nn.Sequential(nn.Linear(width, width), Dropout(dropout))

    def forward(self, tokens: Tensor, count: int | None = None) -> Tensor:
        """Attend among tokens (B, T, E); returns the first `count` of them (all by default), (B, count, E)."""
        length = tokens.shape[1]
        queries, values = self.split_heads(self.query(tokens[:, :count])), self.split_heads(self.value(tokens))
        if self.exact_small and isinstance(length, torch.SymInt):
            attended = self.as_length_says(tokens, queries, values)
        elif self.exact_small and length <= self.landmarks:
            attended = F.scaled_dot_product_attention(queries, self.split_heads(self.key(tokens)), values)
        else:
            attended = self.approximate(tokens, queries, values)
        seen = values if count is None else values[:, :, : count + self.reach]
        attended = attended + self.residual(seen)[:, :, :count]
        return self.output(attended.transpose(1, 2).flatten(2))

    def as_length_says(self, tokens: Tensor, queries: Tensor, values: Tensor) -> Tensor:
        """Exact or approximate attention where an export leaves the number of tokens open: both, and a choice.

        The exact one looks at no more tokens than there are landmarks, so it costs little.
        """
        length, most = tokens.shape[1], self.landmarks
        first = F.pad(tokens, (0, 0, 0, most))[:, :most]
        real = torch.arange(most, device=tokens.device) < length
        keys, contents = self.split_heads(self.key(first)), F.pad(values, (0, 0, 0, most))[:, :, :most]
        exact = F.scaled_dot_product_attention(queries, keys, contents, attn_mask=real[None])
        small = torch.full((), length, device=tokens.device) <= most
        return torch.where(small, exact, self.approximate(tokens, queries, values))

    def approximate(self, tokens: Tensor, queries: Tensor, values: Tensor) -> Tensor:
        """Attention (B, H, Q, E/H) of queries to the keys and values of all tokens, through the landmarks."""
        rows = (tokens.shape[1] + self.landmarks - 1) // self.landmarks
        padding = rows * self.landmarks - tokens.shape[1]
        tokens, values = F.pad(tokens, (0, 0, padding, 0)), F.pad(values, (0, 0, padding, 0))
        # without biases the query of a mean is the mean of the queries
        means = tokens.unflatten(1, (self.landmarks, rows)).mean(2)
        landmark_queries, landmark_keys = self.split_heads(self.query(means)), self.split_heads(self.key(means))
        collected = F.scaled_dot_product_attention(landmark_queries, self.split_heads(self.key(tokens)), values)
        with torch.autocast(tokens.device.type, enabled=False):
            between = (
                at_least_float32(landmark_queries)
                @ at_least_float32(landmark_keys).transpose(2, 3)
                * landmark_queries.shape[3] ** -0.5
            )
            collected = pseudo_inverse(between.softmax(3), self.pinv_iterations) @ at_least_float32(collected)
        return F.scaled_dot_product_attention(queries, landmark_keys, collected.to(queries.dtype))

    def first_token_logits(self, tokens: Tensor) -> Tensor:
        """Scaled products (B, T) of the first token's query with all keys, averaged over the heads; in float32."""
        scale = (tokens.shape[2] // self.heads) ** -0.5 / self.heads
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = at_least_float32(tokens)
            query = self.query(tokens[:, :1]) @ self.key.weight
            return (tokens @ query.transpose(1, 2)).squeeze(2) * scale

    def split_heads(self, tokens: Tensor) -> Tensor:
        """(B, T, E) -> (B, H, T, E/H)."""
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


def pseudo_inverse(matrices: Tensor, iterations: int) -> Tensor:
    """Iterative Moore-Penrose pseudo-inverse of softmax matrices (B, H, M, M), Eq. 11; cubic once it is close.

    The scale of the start is that of the whole bag, not of the batch, so bags stay independent.
    """
    columns, rows = matrices.abs().sum(2).amax((1, 2)), matrices.abs().sum(3).amax((1, 2))
    inverse = matrices.transpose(2, 3) / (columns * rows)[:, None, None, None]
    identity = torch.eye(matrices.shape[3], dtype=matrices.dtype, device=matrices.device)
    for _ in range(iterations):
        product = matrices @ inverse
        inverse = 0.25 * inverse @ (13 * identity - product @ (15 * identity - product @ (7 * identity - product)))
    return inverse
