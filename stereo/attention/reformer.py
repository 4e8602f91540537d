"""Reformer (Kitaev et al., ICLR 2020): softmax attention among tokens that hash alike.

Queries and keys are shared, keys normalised. In each of several rounds the tokens are sorted by a
locality-sensitive hash and cut into chunks; a token sees its own chunk and the one before. Rounds
are joined by their softmax normalisers. A token sees itself only where nothing else is visible.
O(N log N) time. The rotations are a function of the seed and of the training step, which the loop
announces (``begin_step``). Buckets are a product of two smaller hashes, since a volume has too many
for one. Padding is masked, and a chunk has no wrapped-around predecessor.

Changed from equations 3 and 12 to 16: a token sees all of the two chunks, not its own bucket alone,
and a key counts once per round that shows it, without -log N_ij. The authors' code has both as
options (``attend_across_buckets``, ``allow_duplicate_attention``). With a mask, only its cells are
sorted and cut; any other cell looks where its hash would stand among them.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stereo.attention.exact import MAP_ELEMENTS, in_slices
from stereo.attention.reference import softmax_map
from stereo.attention.volume import Size, VolumeAttention, check_counts, check_seed, to_tokens

SELF_LOGIT = -1e5
MAX_ROUNDS = 64


class ReformerAttention(VolumeAttention):
    """LSH attention.

    Args:
        channels: C of the volume.
        chunk: tokens in a chunk, and on average in a bucket.
        rounds: number of hashes.
        seed: of the random rotations.
        map_elements: entries of the attention maps that may exist at once.
        options: see ``VolumeAttention``.
    """

    weights_sum_to_one = True
    linear_cost = False
    unexportable = "it draws random rotations by the number of cells, which a graph leaves open"

    steps: Tensor

    def __init__(
        self,
        channels: int,
        *,
        chunk: int = 64,
        rounds: int = 4,
        seed: int = 0,
        map_elements: int = MAP_ELEMENTS,
        **options: Any,
    ) -> None:
        super().__init__(channels, **options)
        check_counts(chunk=chunk, rounds=rounds, map_elements=map_elements)
        check_seed(seed)
        if rounds > MAX_ROUNDS:
            raise ValueError(f"rounds is {rounds}, expected at most {MAX_ROUNDS}")
        del self.keys
        self.chunk = chunk
        self.rounds = rounds
        self.seed = seed
        self.map_elements = map_elements
        self.register_buffer("steps", torch.tensor(0))

    def begin_step(self, step: int) -> None:
        """Draw new hash rotations for this step."""
        self.steps.fill_(step)

    def project(self, volume: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the queries, which are the keys too, and the values."""
        queries = to_tokens(self.queries(volume), self.heads)
        return queries, queries, to_tokens(self.values(volume), self.heads)

    def attend(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        keys = F.normalize(keys, dim=3)
        total: Tensor | None = None
        log_norm: Tensor | None = None
        if key_mask is not None:
            values = torch.where(key_mask, values, 0)
        for number in range(self.rounds):
            if key_mask is None:
                attended, normaliser = self._one_round(queries, keys, values, number)
            else:
                attended, normaliser = self._masked_round(queries, keys, values, key_mask, number)
            if total is None or log_norm is None:
                total, log_norm = attended, normaliser
                continue
            joint = torch.logaddexp(log_norm, normaliser)
            total = total * (log_norm - joint).exp() + attended * (normaliser - joint).exp()
            log_norm = joint
        assert total is not None
        return (
            total if key_mask is None else torch.where(key_mask.any(dim=2, keepdim=True), total, 0)
        )

    def attend_explicitly(  # noqa: D102
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor | None, size: Size
    ) -> Tensor:
        keys = F.normalize(keys, dim=3)
        count = queries.shape[2]
        times_seen = queries.new_zeros(*queries.shape[:2], count, count)
        for number in range(self.rounds):
            chunk = self._sorted(keys, key_mask, number)[1]
            behind = chunk[..., :, None] - chunk[..., None, :]
            times_seen += ((behind == 0) | (behind == 1)).to(times_seen.dtype)
        logits = queries @ keys.transpose(2, 3) / self.key_width**0.5
        itself = torch.eye(count, dtype=torch.bool, device=queries.device)
        logits = logits.masked_fill(itself, SELF_LOGIT) + times_seen.log()
        if key_mask is not None:
            values = torch.where(key_mask, values, 0)
        return softmax_map(logits, key_mask) @ values

    def _sorted(
        self, keys: Tensor, key_mask: Tensor | None, number: int
    ) -> tuple[Tensor, Tensor]:  # (B, heads, N) long each
        """Return the positions sorted by hash, stably, those of no key last; and each one's chunk.

        A position of no key has the chunk that its hash would stand in.
        """
        hashes = self._hashes(keys, number)
        if key_mask is None:
            order = hashes.argsort(dim=2, stable=True)
            return order, order.argsort(dim=2) // self.chunk
        kept = key_mask[..., 0]
        own = torch.where(kept, hashes, torch.iinfo(hashes.dtype).max)
        in_order, order = own.sort(dim=2, stable=True)
        place = torch.where(kept, order.argsort(dim=2), torch.searchsorted(in_order, hashes))
        last = kept.sum(dim=2, keepdim=True) - 1
        return order, torch.minimum(place, last.clamp(min=0)) // self.chunk

    def _hashes(self, keys: Tensor, number: int) -> Tensor:  # (B, heads, N) long
        buckets = max(1, keys.shape[2] // self.chunk)
        per_hash = 2 * max(1, math.ceil(math.sqrt(buckets) / 2))
        seed = (self.seed * 1_000_003 + int(self.steps)) * 131 + number
        generator = torch.Generator().manual_seed(seed)
        rotations = torch.randn(
            2, self.key_width, per_hash // 2, generator=generator, dtype=torch.float64
        ).to(keys.device, keys.dtype)

        def hashed(some: Tensor) -> Tensor:  # (B, heads, n, K) -> (B, heads, n)
            sides = [some @ rotation for rotation in rotations]
            first, second = (torch.cat([s, -s], dim=3).argmax(dim=3) for s in sides)
            return first * per_hash + second

        with torch.no_grad():
            each = keys.shape[0] * keys.shape[1] * per_hash * 2
            return in_slices(hashed, keys, dim=2, elements_each=each, limit=self.map_elements)

    def _one_round(
        self, queries: Tensor, keys: Tensor, values: Tensor, number: int
    ) -> tuple[Tensor, Tensor]:
        """Return (B, heads, N, V) attended values and (B, heads, N, 1) log normalisers."""
        count = keys.shape[2]
        order = self._sorted(keys, None, number)[0]
        chunks = [self._chunked(_gather(t, order)) for t in (queries, keys, values)]
        index = self._chunked(order[..., None], fill=-1)  # (B, heads, chunks, chunk, 1)
        keys_seen, values_seen = (_with_previous(t, fill=0) for t in chunks[1:])
        index_seen = _with_previous(index, fill=-1)
        scale = self.key_width**-0.5

        def attend_some(q: Tensor, k: Tensor, v: Tensor, own: Tensor, seen: Tensor) -> Tensor:
            logits = q @ k.transpose(3, 4) * scale
            seen = seen.transpose(3, 4)
            logits = torch.where(own == seen, SELF_LOGIT, logits).masked_fill(seen < 0, -torch.inf)
            log_norm = logits.logsumexp(dim=4, keepdim=True)
            return torch.cat([(logits - log_norm).exp() @ v, log_norm], dim=4)

        each = keys.shape[0] * keys.shape[1] * 2 * self.chunk**2
        joined = in_slices(
            attend_some,
            *(chunks[0], keys_seen, values_seen, index, index_seen),
            dim=2,
            elements_each=each,
            limit=self.map_elements,
        )
        joined = _gather(joined.flatten(2, 3)[:, :, :count], order.argsort(dim=2))
        return joined[..., :-1], joined[..., -1:]

    def _masked_round(
        self, queries: Tensor, keys: Tensor, values: Tensor, key_mask: Tensor, number: int
    ) -> tuple[Tensor, Tensor]:
        """As ``_one_round``; every query gathers the keys that it sees."""
        order, chunk = self._sorted(keys, key_mask, number)
        count = key_mask.sum(dim=2).unsqueeze(3)  # (B, 1, 1, 1)
        first = self.chunk * chunk[..., None]
        positions = torch.arange(keys.shape[2], device=keys.device)[:, None].expand_as(first)
        scale = self.key_width**-0.5

        def attend_some(q: Tensor, own: Tensor, start: Tensor) -> Tensor:
            rank = start + torch.arange(-self.chunk, self.chunk, device=q.device)
            there = (rank >= 0) & (rank < count)
            rank = torch.minimum(rank.clamp(min=0), (count - 1).clamp(min=0))
            seen = order.gather(2, rank.flatten(2))
            k, v = (_gather(t, seen).unflatten(2, rank.shape[2:]) for t in (keys, values))
            logits = torch.einsum("bhnk,bhnmk->bhnm", q, k) * scale
            logits = torch.where(own == seen.unflatten(2, rank.shape[2:]), SELF_LOGIT, logits)
            # Without any key all are let through, for finite gradients, and the result is not used.
            logits = logits.masked_fill(~there & (count > 0), -torch.inf)
            log_norm = logits.logsumexp(dim=3, keepdim=True)
            attended = torch.einsum("bhnm,bhnmv->bhnv", (logits - log_norm).exp(), v)
            return torch.cat([attended, log_norm], dim=3)

        width = self.key_width + values.shape[3]
        joined = in_slices(
            attend_some,
            *(queries, positions, first),
            dim=2,
            elements_each=keys.shape[0] * keys.shape[1] * 2 * self.chunk * width,
            limit=self.map_elements,
        )
        return joined[..., :-1], joined[..., -1:]

    def _chunked(self, tokens: Tensor, fill: int = 0) -> Tensor:
        """Pad (B, heads, N, dim) at the end and cut it into (B, heads, chunks, chunk, dim)."""
        padded = F.pad(tokens, (0, 0, 0, -tokens.shape[2] % self.chunk), value=fill)
        return padded.unflatten(2, (-1, self.chunk))


def _gather(tokens: Tensor, order: Tensor) -> Tensor:
    return tokens.gather(2, order[..., None].expand(-1, -1, -1, tokens.shape[3]))


def _with_previous(chunks: Tensor, fill: int) -> Tensor:
    """Put before each (B, heads, chunks, chunk, dim) chunk the one before it, or ``fill``."""
    first = torch.full_like(chunks[:, :, :1], fill)
    return torch.cat([torch.cat([first, chunks[:, :, :-1]], dim=2), chunks], dim=3)
