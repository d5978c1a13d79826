"""Which transactions of an application are open; knows nothing of what is in them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing

from kafka.errors import TransactionalIdNotFoundError

from stream.clients import admin
from stream.settings import KafkaSettings

_OPEN = ("Ongoing", "PrepareCommit", "PrepareAbort", "PrepareEpochFence")


def open_transactions(
    settings: KafkaSettings, *, clock: Callable[[], float] = time.time
) -> dict[str, float]:
    """Return how many seconds each open transaction of the application's slots is old.

    It asks every broker (KIP-664, Kafka 3.0); a transaction that ends meanwhile is left out.
    """
    with closing(admin(settings)) as client:
        listed = client.list_transactions(state_filters=list(_OPEN))
        ids = {one.transactional_id for group in listed.values() for one in group}
        ages = {}
        for name in sorted(i for i in ids if i.startswith(f"{settings.app}-")):
            try:
                found = client.describe_transactions([name])[name]  # type: ignore[no-untyped-call]
            except TransactionalIdNotFoundError:
                continue
            if found.state.value in _OPEN:
                ages[name] = max(0.0, clock() - found.transaction_start_time_ms / 1000)
    return ages
