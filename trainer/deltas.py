"""Between two bundles: moved rows, new items and fresh clicks, published by the minute.

It knows the bundle that was published last; when a delta is due, others know.
Shapes: N items, D dimensions, M changed rows.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec
import numpy as np
import structlog
import torch
from torch import Tensor

from model.bundle import RecentClicks, encoder_version
from model.delta import Delta, publish_delta
from model.listed import MANIFEST
from model.manifest import MAX_DELTAS, DeltaManifest, delta_version
from model.store import Store
from stream.messages import Gate, ModelAnnouncement
from trainer.comparison import Comparison
from trainer.publish import announced
from trainer.settings import TrainerSettings
from trainer.stream_learner import Frozen, StreamLearner

log = structlog.get_logger(__name__)

# Negatives that a batch shares touch nearly every row each minute. One that has turned by less than
# this, 2.6 degrees, changes no list that anybody would miss, and is not worth its bytes.
LEAST_MOVE: Final = 1e-3
# Of the last bundle; a worker needs one, `nextclick verify` those that it can get.
KEPT_DELTAS: Final = 20
_STANDARD_ERRORS: Final = 3.0


class Moment(NamedTuple):
    """When a delta is made, and how far the clicks were learnt."""

    trained_through: dict[int, int]
    now_ms: int


class Standing(msgspec.Struct):
    """How far the deltas of a bundle are; goes into checkpoints.

    `first_click` is the number of the first click that the bundle does not have, `through_click`
    that of the first one that its last delta does not have. `rows_fit` is False while a candidate
    stands refused: rows trained with its encoder do not fit the one that serves.
    """

    bundle: str
    first_click: int
    through_click: int
    number: int = 0
    rows_fit: bool = True


class Deltas:
    """The one publisher of deltas; silent until `begin` or `resume`, and after `forget`.

    A delta's clicks must begin with those of the one before it, since workers add only what is
    missing. So nobody else goes on where a delta was made that a checkpoint does not know: read
    again, clicks of several partitions may come in another order.
    """

    def __init__(
        self,
        store: Store,
        announce: Callable[[ModelAnnouncement], None],
        settings: TrainerSettings,
    ) -> None:
        self._store = store
        self._announce = announce
        self._settings = settings
        self._frozen: Frozen | None = None
        self._encoder_version = ""
        self.standing: Standing | None = None

    def begin(self, bundle: str, frozen: Frozen, num_clicks: int) -> None:
        """Make deltas of a bundle from now on; `num_clicks` had been remembered by then."""
        self._start(Standing(bundle, num_clicks, num_clicks), frozen)

    def resume(self, standing: Standing | None, bundle: str | None, frozen: Frozen | None) -> None:
        """Go on as a checkpoint says, if that is about the bundle that serves and the last word."""
        self.forget()
        if standing is None or frozen is None or standing.bundle != bundle:
            return
        if standing.number == MAX_DELTAS:
            return
        following = delta_version(standing.bundle, standing.number + 1)
        if not self._store.has(self._settings.model, following):
            self._start(standing, frozen)

    def hold_rows(self) -> None:
        """Ship only new items and clicks until the next bundle: a candidate was refused."""
        if self.standing is not None:
            self.standing.rows_fit = False

    def forget(self) -> None:
        """Make no delta until the next bundle."""
        self.standing = self._frozen = None

    def _start(self, standing: Standing, frozen: Frozen) -> None:
        self.standing, self._frozen = standing, frozen
        self._encoder_version = encoder_version(frozen.encoder)

    def release(
        self, stream: StreamLearner, *, trained_through: dict[int, int], now_ms: int
    ) -> ModelAnnouncement | None:
        """Store and announce what is new since the bundle; None when nothing is.

        Raises BundleError for values that must not serve.
        """
        standing, frozen, memory = self.standing, self._frozen, stream.fusion.memory
        if standing is None or frozen is None or standing.number == MAX_DELTAS:
            return None
        if memory.num_added == standing.through_click:
            return None
        if standing.first_click < memory.oldest:
            log.warning("no deltas until the next bundle: fusion.max_clicks is too small for them")
            self.forget()
            return None
        delta = self._delta(standing, frozen.vectors_ND, stream, Moment(trained_through, now_ms))
        stored = publish_delta(self._store, delta, num_items=len(frozen.vectors_ND))
        standing.number += 1
        standing.through_click = memory.num_added
        sent = announced(
            *(delta.manifest, stored, "delta"),
            metrics={
                "changed_rows": float(len(delta.rows_M)),
                "new_items": float(len(delta.new_ids)),
                "clicks": float(len(delta.clicks.rows_E)),
            },
            gate=Gate(verdict="accepted", reason="delta"),
        )
        self._announce(sent)
        self._remove_old(standing)
        log.info("delta published", version=sent.version, bytes=sent.bytes, **sent.metrics)
        return sent

    def _delta(
        self, standing: Standing, base_ND: Tensor, stream: StreamLearner, moment: Moment
    ) -> Delta:
        items, known = stream.learner.items, len(base_ND)
        vectors_ND = items.unit_vectors()
        held = not standing.rows_fit or clearly_worse(stream.comparison)
        most = 0 if held else self._settings.max_delta_rows
        rows_M = moved_rows(vectors_ND[:known], base_ND, most)
        return Delta(
            manifest=DeltaManifest(
                name=self._settings.model,
                version=delta_version(standing.bundle, standing.number + 1),
                parent=standing.bundle,
                created_at=moment.now_ms,
                encoder_version=self._encoder_version,
                trained_through=dict(moment.trained_through),
            ),
            rows_M=rows_M.numpy().astype(np.int32),
            vectors_MD=vectors_ND[rows_M].numpy(),
            new_ids=items.ids[known:],
            new_vectors_XD=vectors_ND[known:].numpy(),
            clicks=RecentClicks(*stream.fusion.memory.columns(since=standing.first_click)),
        )

    def _remove_old(self, standing: Standing) -> None:
        if standing.number > KEPT_DELTAS:
            old = delta_version(standing.bundle, standing.number - KEPT_DELTAS)
            self._store.delete(self._settings.model, old, first=MANIFEST)


def moved_rows(vectors_ND: Tensor, base_ND: Tensor, most: int) -> Tensor:
    """Return the rows that turned by more than `LEAST_MOVE`, at most `most`, most moved first.

    Both are unit vectors; a row that is not finite counts as moved, so that it is found.
    """
    cosine_N = torch.einsum("nd,nd->n", vectors_ND, base_ND)
    rows_M = (~(cosine_N >= 1 - LEAST_MOVE)).nonzero().squeeze(1)
    return rows_M[cosine_N[rows_M].nan_to_num(nan=-2.0).argsort()[:most]]


def clearly_worse(compared: Comparison) -> bool:
    """Whether the learner's MRR is 3 standard errors below the serving bundle's."""
    change = compared.change()
    return change.mean < -_STANDARD_ERRORS * change.error
