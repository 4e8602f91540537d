"""The project's metrics as a torchmetrics ``Metric``, for training loops and several processes.

It is a file of its own because importing torchmetrics imports torchvision, which inference and
evaluation must not need.
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from stereo.evaluation.metrics import COLUMNS, ImageScore, error_sums, summarise
from stereo.evaluation.protocols import Protocol


class DisparityMetric(Metric):
    """EPE, bad-t and D1 under a protocol, the same for any batch size and number of processes.

    The state is one row per image, ``(index, skipped, sums...)``, gathered over processes; an image
    that a distributed sampler handed out twice counts once.

    Args:
        protocol: the rules.
    """

    full_state_update = False
    higher_is_better = False

    def __init__(self, protocol: Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.rows: list[Tensor]
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, estimate: Tensor, truth: Tensor, valid: Tensor, index: Tensor) -> None:
        """Add a batch.

        Args:
            estimate: (B, H, W) float, pixels.
            truth: (B, H, W) float, pixels.
            valid: (B, H, W) bool, true where there is ground truth.
            index: (B,) integer place of each image in the data set.
        """
        rows = []
        for e, t, v, i in zip(estimate, truth, valid, index, strict=True):
            true = t.float().cpu().numpy()
            counted = self.protocol.valid_pixels(true, v.cpu().numpy())
            skipped = not self.protocol.enough_valid(counted)
            sums = error_sums(e.detach().float().cpu().numpy(), true, counted)
            rows.append([float(i), float(skipped), *sums])
        self.rows.append(self._as_rows(rows))

    def sync(self, *arguments: Any, **options: Any) -> None:
        """Gather the rows of all processes; one without images gathers none."""
        self.rows = self.rows or [self._as_rows([])]
        super().sync(*arguments, **options)

    def _as_rows(self, rows: list[list[float]]) -> Tensor:
        rows_of_floats = torch.tensor(rows, dtype=torch.float64, device=self.device)
        return rows_of_floats.reshape(-1, 2 + len(COLUMNS))

    def compute(self) -> dict[str, object]:
        """Return the summary of ``stereo.evaluation.metrics.summarise`` over all images seen."""
        scores = {}
        gathered = self.rows if isinstance(self.rows, list) else [self.rows]
        for row in torch.cat([*gathered, self._as_rows([])]).cpu().numpy():
            index = int(row[0])
            scores[index] = ImageScore(str(index), index, {"all": row[2:]}, skipped=bool(row[1]))
        return summarise(list(scores.values()), self.protocol.averaging)
