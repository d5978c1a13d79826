"""From answers to records: recommendations, changelog, markers, dead letters; sends nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import compress
from typing import Any

import numpy as np

from index.features import EXPLORED, NEAR, NEIGHBOURS, POPULAR, RULES, SESSION
from stream.batch import Send
from stream.changelog import (
    MARKER_KEY,
    SessionRecord,
    encode_marker,
    encode_session,
    tombstone_headers,
)
from stream.dead_letters import dead_letter
from stream.headers import RecommendationHeaders, traceparent_of
from stream.messages import ModelName, Recommendation, RecommendedItem, Trigger, encode
from stream.settings import TopicSettings
from worker.canary import VARIANT
from worker.intake import Dead, Judged, Seated
from worker.ledger import Ledger
from worker.recommender import Answers
from worker.sessions import EMPTY, Sessions
from worker.settings import RankingSettings
from worker.version import ServingVersion

Array = np.ndarray[Any, np.dtype[Any]]
ItemName = Callable[[int], str]

SESSION_SCHEMA = 1
_SCORE_DECIMALS = 4
_CHANNELS = (
    (NEAR, "rnn"),
    (NEIGHBOURS, "knn"),
    (RULES, "rules"),
    (POPULAR, "popular"),
    (SESSION, "session"),
    (EXPLORED, "exploration"),
)
_NEW = ["new"]


class Writer:
    """Turn the answers of a batch into records; constant parts are prepared once."""

    def __init__(
        self,
        topics: TopicSettings,
        ranking: RankingSettings,
        *,
        app: str,
        app_version: str,
        guarantee: str = "at_least_once",
    ) -> None:
        self._topics = topics
        self._ranking = ranking
        self._guarantee = guarantee
        self._app = app
        self._app_version = app_version

    def recommendations(
        self,
        seated: Seated,
        answers: Answers,
        version: ServingVersion,
        *,
        generation: int,
        now_ms: int,
        item_name: ItemName,
    ) -> Iterator[Send]:
        """Yield one recommendation per click, to the partition with the number of the click's.

        Its model is the version that made the list, its headers name that of the session.
        """
        models = [_model(version), _model(answers.tried.version if answers.tried else version)]
        headers = self._headers(seated, version, generation, now_ms)
        for judged, codes_K, scores_K, sources_K, popular_from, n, digest, repeat, tried in _rows(
            seated, answers
        ):
            record, event, _ = judged
            header = headers[record.partition]
            recommendation = Recommendation(
                recommendation_id=header.recommendation_id(record.offset),
                user_id=event.user_id,
                session_id=event.session_id,
                trigger=_trigger(judged),
                model=models[tried],
                policy=self._ranking.name,
                generated_at=now_ms,
                items=_items(codes_K, scores_K, sources_K, item_name),
                variant=VARIANT if tried else None,
                fallback=None if popular_from else "cold",
            )
            place = (self._topics.recommendations, record.partition, event.user_id.encode())
            trace = traceparent_of(record.headers) if record.headers else None
            about = header.recommendation_headers(
                record.offset, n, digest, replayed=repeat, traceparent=trace
            )
            yield Send(*place, encode(recommendation), about)

    def dead_letters(self, dead: Iterable[Dead]) -> Iterator[Send]:
        """Yield the dead letters, to the partition with the number of the record's."""
        for record, reason, error in dead:
            letter = dead_letter(
                record, reason, app=self._app, version=self._app_version, error=error
            )
            yield Send(self._topics.dead_letters, record.partition, *letter)

    def changelog(
        self,
        seated: Seated,
        sessions: Sessions,
        version: ServingVersion,
        ledgers: Mapping[int, Ledger],
        *,
        generation: int,
        item_name: ItemName,
    ) -> Iterator[Send]:
        """Yield one record per changed user, a tombstone per evicted one, then the markers.

        A partition's marker comes last, so that it never promises what is not written.
        """
        topic = self._topics.sessions
        for partition, user_id, last_offset in seated.evicted:
            headers = tombstone_headers(last_offset)
            yield Send(topic, partition, user_id.encode(), None, headers)
        slots_U = np.fromiter(seated.owners, np.int64, len(seated.owners))
        # A click that is repeated after its user was evicted has no session.
        kept_U = sessions.n_S[slots_U] > 0
        values = session_values(sessions, slots_U[kept_U], version, generation, item_name)
        for (partition, user_id), value in zip(
            compress(seated.owners.values(), kept_U.tolist()), values, strict=True
        ):
            yield Send(topic, partition, user_id.encode(), value, [])
        for partition, ledger in ledgers.items():
            marker = ledger.marker(generation, version.name, self._guarantee)
            yield Send(topic, partition, MARKER_KEY, encode_marker(marker), [])

    def _headers(
        self, seated: Seated, version: ServingVersion, generation: int, now_ms: int
    ) -> dict[int, RecommendationHeaders]:
        return {
            partition: RecommendationHeaders(
                *(self._topics.clicks, partition),
                app=self._app,
                generation=generation,
                model_version=version.name,
                time_ms=now_ms,
            )
            for partition in {judged.record.partition for judged in seated.judged}
        }


def session_values(
    sessions: Sessions,
    slots_U: Array,
    version: ServingVersion,
    generation: int,
    item_name: ItemName,
) -> Iterator[bytes]:
    """Yield the changelog values of `slots_U`: item ids instead of codes, states as float32."""
    codes_UR, lengths_U = sessions.ordered(slots_U)
    hidden_UH = np.ascontiguousarray(sessions.hidden_SH[slots_U], "<f4")
    events_UE = np.ascontiguousarray(sessions.events_SE[slots_U], "<u8")
    current_U = (sessions.version_S[slots_U] == version.number).tolist()
    columns = zip(
        *(sessions.offset_S[slots_U].tolist(), sessions.n_S[slots_U].tolist()),
        *(sessions.digest_S[slots_U].tolist(), sessions.session_hash_S[slots_U].tolist()),
        *(sessions.length_S[slots_U].tolist(), sessions.time_S[slots_U].tolist()),
        *(codes_UR.tolist(), np.minimum(lengths_U, codes_UR.shape[1]).tolist()),
        strict=True,
    )
    for u, (offset, n, digest, session_hash, length, time_ms, codes, num) in enumerate(columns):
        yield encode_session(
            SessionRecord(
                *(SESSION_SCHEMA, offset, generation),
                version.name if current_U[u] else "",
                *(n, digest, session_hash, length, time_ms),
                [item_name(code) for code in codes[:num]],
                hidden_UH[u].tobytes(),
                events_UE[u].tobytes(),
            )
        )


def _rows(seated: Seated, answers: Answers) -> Iterator[tuple[Any, ...]]:
    """Yield columns of each click; see `Writer.recommendations` for their order."""
    lists, after = answers.lists, answers.sessions
    # Scores are finite: the index returns no row for a query that is not.
    scores_BK = np.round(lists.scores_BK.astype(np.float64), _SCORE_DECIMALS)
    tried = answers.tried.chosen_B.tolist() if answers.tried else [False] * len(lists.codes_BK)
    return zip(
        *(seated.judged, lists.codes_BK.tolist(), scores_BK.tolist(), lists.sources_BK.tolist()),
        *(lists.popular_from_B.tolist(), after.n_B.tolist(), after.digest_B.tolist()),
        *(seated.clicks.repeat_B.tolist(), tried),
        strict=True,
    )


def _model(version: ServingVersion) -> ModelName:
    return ModelName(name=version.bundle.manifest.name, version=version.name)


def _trigger(judged: Judged) -> Trigger:
    _, event, time_ms = judged
    return Trigger(item_id=event.item_id, timestamp=time_ms, event_id=event.event_id)


def _items(
    codes_K: list[int], scores_K: list[float], sources_K: list[int], item_name: ItemName
) -> list[RecommendedItem]:
    return [
        RecommendedItem(
            item_id=item_name(code),
            score=score,
            sources=_SOURCES[sources] if code >= 0 else _NEW,
        )
        for code, score, sources in zip(codes_K, scores_K, sources_K, strict=True)
        if code != EMPTY
    ]


def _names(bits: int) -> list[str]:
    return [name for bit, name in _CHANNELS if bits & bit]


_SOURCES = [_names(bits) for bits in range(sum(bit for bit, _ in _CHANNELS) + 1)]
