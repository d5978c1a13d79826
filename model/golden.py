"""Sessions whose scores a loaded version must reproduce; knows no files.

They catch what checksums cannot: another release, machine or library that computes otherwise.
Shapes: S sessions, C of them, T items, N items of the catalogue, D dimensions, K best items.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from model.bundle import Bundle, BundleError, GoldenSession
from model.encoders.session_encoder import SessionEncoder

MAX_SESSIONS: Final = 200
TOP_K: Final = 20
# Another BLAS or batch size moves a cosine by 1e-6; another model moves it by 1e-2 and more.
_TOLERANCE: Final = 1e-4
_CHUNK: Final = 16

Float32 = NDArray[np.float32]


def golden_sessions(
    encoder: SessionEncoder, vectors_ND: Float32, sessions: Sequence[Sequence[int]]
) -> list[GoldenSession]:
    """Return up to 200 sessions (rows, oldest first) with their exact 20 best rows and scores."""
    rows = [list(session[-encoder.window :]) for session in sessions if len(session)]
    rows = rows[:MAX_SESSIONS]
    if not rows or not len(vectors_ND):
        return []
    top_SK, best_SK = _best(_queries(encoder, vectors_ND, rows), vectors_ND)
    return [
        GoldenSession(*columns)
        for columns in zip(rows, top_SK.tolist(), best_SK.tolist(), strict=True)
    ]


def check_golden(bundle: Bundle) -> None:
    """Raise BundleError `golden` unless every golden session gets its stored list again.

    Both the scores of the stored rows and the best scores of all rows must agree; which of two
    equally good rows comes first is free. O(200 N D).
    """
    golden, num_items = bundle.golden, len(bundle.catalogue)
    if not golden:
        return
    num_best = min(TOP_K, num_items)
    if not all(_well_formed(session, num_items, num_best) for session in golden):
        raise BundleError("golden", "a golden session names rows that are not in the catalogue")
    queries_SD = _queries(bundle.encoder, bundle.vectors_ND, [session.rows for session in golden])
    stored_SK = np.array([session.scores for session in golden], np.float32)
    named_SKD = bundle.vectors_ND[np.array([session.top_rows for session in golden])]
    named_SK = np.einsum("sd,skd->sk", queries_SD, named_SKD)
    _, best_SK = _best(queries_SD, bundle.vectors_ND)
    off = max(float(np.abs(given_SK - stored_SK).max()) for given_SK in (named_SK, best_SK))
    if not off <= _TOLERANCE:
        raise BundleError("golden", f"scores differ from the stored ones by up to {off:.2g}")


def _well_formed(session: GoldenSession, num_items: int, num_best: int) -> bool:
    rows = [*session.rows, *session.top_rows]
    sizes = (len(session.top_rows), len(session.scores))
    in_range = bool(session.rows) and min(rows) >= 0 and max(rows) < num_items
    return in_range and sizes == (num_best, num_best)


def _queries(
    encoder: SessionEncoder, vectors_ND: Float32, sessions: Sequence[Sequence[int]]
) -> Float32:
    lengths_S = torch.tensor([len(rows) for rows in sessions])
    rows_ST = np.zeros((len(sessions), int(lengths_S.max())), np.int64)
    for place, rows in enumerate(sessions):
        rows_ST[place, : len(rows)] = rows
    newest_S = np.array([rows[-1] for rows in sessions])
    with torch.inference_mode():
        state_SH = encoder.encode(torch.from_numpy(vectors_ND[rows_ST]), lengths_S)
        queries_SD: Float32 = encoder.query(
            state_SH, torch.from_numpy(vectors_ND[newest_S])
        ).numpy()
    return queries_SD


def _best(queries_SD: Float32, vectors_ND: Float32) -> tuple[NDArray[np.int64], Float32]:
    """Return (rows, scores) [S, K] of an exact search, best first, with little memory."""
    k = min(TOP_K, len(vectors_ND))
    rows, scores = [], []
    for start in range(0, len(queries_SD), _CHUNK):
        scores_CN = queries_SD[start : start + _CHUNK] @ vectors_ND.T
        rows_CK = np.argpartition(-scores_CN, k - 1, axis=1)[:, :k]
        scores_CK = np.take_along_axis(scores_CN, rows_CK, axis=1)
        order_CK = np.argsort(-scores_CK, axis=1, kind="stable")
        rows.append(np.take_along_axis(rows_CK, order_CK, axis=1))
        scores.append(np.take_along_axis(scores_CK, order_CK, axis=1))
    return np.concatenate(rows), np.concatenate(scores)
