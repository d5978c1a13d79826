"""The stored versions of a model, refused ones too, by what their manifests say; knows no Kafka."""

from collections.abc import Iterator

from model.bundle import BundleError, Published, find
from model.listed import MANIFEST
from model.manifest import bundle_of
from model.store import Store


class UnknownVersionError(LookupError):
    """No version of that name is stored; the text lists those that are."""


def refused_name(name: str) -> str:
    """Return the name under which a model's refused versions are kept for people."""
    return f"{name}.refused"


def stored_versions(store: Store, name: str) -> Iterator[Published]:
    """Yield a model's readable bundles in rising order, then the refused ones."""
    for folder in (name, refused_name(name)):
        for version in store.list(folder, complete=MANIFEST):
            if bundle_of(version) != version:
                continue  # a delta: it comes and goes with its bundle
            try:
                yield find(store, folder, version)
            except BundleError:
                continue  # removed since, or no manifest of ours: nothing can be said of it


def find_version(store: Store, name: str, version: str) -> Published:
    """Return one of them; raises UnknownVersionError."""
    known = {found.manifest.version: found for found in stored_versions(store, name)}
    if version in known:
        return known[version]
    raise UnknownVersionError(
        f"no version {version} of model {name} is stored; there are: {', '.join(known) or 'none'}"
    )


def version_before(store: Store, name: str, serving: str) -> Published:
    """Return the version that served before `serving`: its parent, if that is stored.

    Otherwise it is the newest one below. Raises UnknownVersionError where there is none.
    """
    known = {
        found.manifest.version: found
        for found in stored_versions(store, name)
        if found.manifest.name == name
    }
    parent = known[serving].manifest.parent if serving in known else None
    if parent is not None and parent in known:
        return known[parent]
    older = [version for version in known if version < serving]
    if not older:
        raise UnknownVersionError(
            f"no version of model {name} before {serving} is stored; there are: "
            f"{', '.join(known) or 'none'}"
        )
    return known[older[-1]]
