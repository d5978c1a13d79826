"""Stored versions by their names, deltas joined to their bundles; knows no announcement."""

from model.bundle import find, load
from model.contents import Bundle
from model.delta import join, load_delta
from model.manifest import bundle_of
from model.store import Store


class StoredVersions:
    """Loads versions of one model; ask in the order of their names, since it keeps one bundle."""

    def __init__(self, store: Store, name: str, *, max_bytes: int) -> None:
        self._store = store
        self._name = name
        self._max_bytes = max_bytes
        self._bundle: Bundle | None = None

    def load(self, version: str) -> Bundle:
        """Return a version; raises BundleError, or ValueError for what cannot be a name."""
        uri = self._store.uri(self._name, version)
        parent = self._bundle_named(bundle_of(version))
        if parent.manifest.version == version:
            return parent
        return join(parent, load_delta(uri, parent, max_bytes=self._max_bytes))

    def _bundle_named(self, version: str) -> Bundle:
        if self._bundle is None or self._bundle.manifest.version != version:
            found = find(self._store, self._name, version)
            self._bundle = load(found.uri, found.manifest_sha256, max_bytes=self._max_bytes)
        return self._bundle
