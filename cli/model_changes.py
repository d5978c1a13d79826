"""Checks a stored version and announces it, for `nextclick models promote` and `rollback`.

Heavy packages are imported in the functions, so that `nextclick --help` is quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from cli.settings import Settings
    from model.bundle import Bundle, Published
    from model.store import Store
    from stream.announcements import ModelsTopic
    from stream.messages import ModelAnnouncement

_BY_HAND = "by hand"


class NoSuchChangeError(RuntimeError):
    """The change makes no sense; the text says what does."""


class ModelChanges:
    """Announces stored versions of the configured model; one object per command.

    `serving` is what was announced last. Every change is a new version, greater than all before.
    """

    def __init__(self, settings: Settings, store: Store, topic: ModelsTopic, now_ms: int) -> None:
        self._model = settings.worker.model
        self._max_bytes = settings.worker.max_bundle_bytes
        self._store = store
        self._topic = topic
        self._now_ms = now_ms
        self.serving = topic.latest(self._model)

    def promote(self, version: str) -> ModelAnnouncement:
        """Let a stored version serve, also one that the gate refused.

        Raises UnknownVersionError, BundleError for a damaged one, and NoSuchChangeError.
        """
        from model.versions import find_version

        found = find_version(self._store, self._model, version)
        if found.manifest.name != self._model:
            return self._promote_refused(found)
        return self._restore(found, verdict="promoted")

    def roll_back(self, to: str | None) -> ModelAnnouncement:
        """Let an earlier version serve again, by default the one before; raises as `promote`."""
        from model.versions import find_version, version_before

        serving = self.serving_version
        if serving is None:
            raise NoSuchChangeError(f"no version of model {self._model} serves yet")
        if to is None:
            found = version_before(self._store, self._model, serving)
        else:
            found = find_version(self._store, self._model, to)
        if found.manifest.name != self._model:
            raise NoSuchChangeError(
                f"{to} was refused by the gate and never served; `nextclick models promote {to}` "
                "lets it"
            )
        return self._restore(found, verdict="restored")

    @property
    def serving_version(self) -> str | None:
        """The stored version that serves, None while none does."""
        from stream.announcements import stored_version

        return None if self.serving is None else stored_version(self.serving)

    def _restore(self, found: Published, *, verdict: str) -> ModelAnnouncement:
        from stream.announcements import restoring
        from stream.messages import Gate
        from trainer.publish import announcement

        version = found.manifest.version
        if version == self.serving_version:
            raise NoSuchChangeError(f"{version} serves already")
        self._load(found)
        gate = Gate(verdict=verdict, reason=_BY_HAND)
        message = restoring(announcement(found), self._next_version(version), gate)
        self._topic.announce(message)
        return message

    def _promote_refused(self, found: Published) -> ModelAnnouncement:
        """Publish a refused version anew under the model's own name, and announce that."""
        from dataclasses import replace

        from model.bundle import publish
        from model.manifest import GateVerdict
        from trainer.publish import announcement

        bundle, manifest = self._load(found), found.manifest
        promoted = msgspec.structs.replace(
            manifest,
            name=self._model,
            version=self._next_version(manifest.version),
            parent=self.serving_version,
            gate=GateVerdict(verdict="promoted", reason=f"{_BY_HAND}; was {manifest.gate.reason}"),
        )
        message = announcement(publish(self._store, replace(bundle, manifest=promoted)))
        self._topic.announce(message)
        return message

    def _load(self, found: Published) -> Bundle:
        """Read a version as a worker would, so that no damaged one is announced."""
        from model.bundle import load

        return load(found.uri, found.manifest_sha256, max_bytes=self._max_bytes)

    def _next_version(self, version: str) -> str:
        from model.manifest import new_version

        newest = None if self.serving is None else self.serving.version
        return new_version(self._now_ms, version.partition("Z-")[2], after=newest)
