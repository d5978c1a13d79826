"""The manifest of a bundle or a delta: what it is, whence it comes, its files; knows no disk."""

import math
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, TypeVar, get_args

import msgspec
from msgspec import Meta, Struct

from model.encoders.session_encoder import EncoderConfig

SCHEMA: Final = 1
MAX_MANIFEST_BYTES: Final = 1 << 20
MAX_DELTAS: Final = 9999  # of one bundle: their names have four digits, so that they order
_STAMP: Final = "%Y%m%dT%H%M%S"
_PLUS: Final = "+"

Label = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}\Z")]
Channel = Literal["rnn", "knn", "rules", "popular"]
CHANNELS: Final[tuple[Channel, ...]] = get_args(Channel)
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


_Kind = TypeVar("_Kind", "Manifest", "DeltaManifest")


class BundleError(ValueError):
    """A bundle was refused; `reason` is a stable metric label, `detail` is for people."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class FileEntry(Struct, frozen=True):
    """One file of the bundle."""

    bytes: Annotated[int, Meta(ge=0)]
    sha256: Sha256


class GateVerdict(Struct, frozen=True, kw_only=True):
    """What the trainer's gate said."""

    verdict: str
    reason: str | None = None


class IndexFacts(Struct, frozen=True, kw_only=True):
    """How the trainer planned the index, and the recall it measured; no lists means exact."""

    num_lists: Annotated[int, Meta(ge=0)] = 0
    nprobe: Annotated[int, Meta(ge=0)] = 0
    recall: Annotated[float, Meta(ge=0, le=1)] = 1.0


class Manifest(Struct, frozen=True, kw_only=True):
    """A published version. `num_items`, `num_clicks` and `files` are filled in by `publish`.

    `features` are what the ranker weighs, in order; none without a ranker. `channels` are those
    that it was fitted on and that bring candidates.
    """

    name: Label
    version: Label
    created_at: Annotated[int, Meta(ge=0, description="Milliseconds since the epoch.")]
    encoder_version: Annotated[str, Meta(min_length=1, max_length=128)]
    encoder: EncoderConfig
    temperature: Annotated[float, Meta(gt=0)] = 12.0
    parent: Label | None = None
    trained_through: dict[int, int] = {}
    metrics: dict[str, float] = {}
    gate: GateVerdict = GateVerdict(verdict="first")
    index: IndexFacts = IndexFacts()
    dtype: Literal["float32"] = "float32"
    num_items: Annotated[int, Meta(ge=0)] = 0
    num_clicks: Annotated[int, Meta(ge=0)] = 0
    features: tuple[str, ...] = ()
    channels: Annotated[tuple[Channel, ...], Meta(min_length=1)] = CHANNELS
    files: dict[str, FileEntry] = {}
    schema: Annotated[int, Meta(ge=1)] = SCHEMA

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, (self.temperature, *self.metrics.values()))):
            raise ValueError("temperature and metrics must be finite numbers")

    @property
    def num_bytes(self) -> int:
        """Bytes of all files, without the manifest."""
        return sum(entry.bytes for entry in self.files.values())


class DeltaManifest(Struct, frozen=True, kw_only=True):
    """A published delta. The numbers and `files` are filled in by `model.delta.publish_delta`.

    `parent` is the bundle that it changes; encoder, ranker and temperature stay that one's.
    """

    name: Label
    version: Label
    parent: Label
    created_at: Annotated[int, Meta(ge=0, description="Milliseconds since the epoch.")]
    encoder_version: Annotated[str, Meta(min_length=1, max_length=128)]
    trained_through: dict[int, int] = {}
    num_changed: Annotated[int, Meta(ge=0)] = 0
    num_new: Annotated[int, Meta(ge=0)] = 0
    num_clicks: Annotated[int, Meta(ge=0)] = 0
    files: dict[str, FileEntry] = {}
    schema: Annotated[int, Meta(ge=1)] = SCHEMA

    def __post_init__(self) -> None:
        if bundle_of(self.version) != self.parent or self.version == self.parent:
            raise ValueError(f"{self.version!r} is no name for a delta of {self.parent!r}")


def encode_manifest(manifest: Manifest | DeltaManifest) -> bytes:
    """Return the canonical JSON: sorted keys, so that equal manifests have equal hashes."""
    # Sorting needs text keys, and partitions are numbers.
    plain = msgspec.to_builtins(manifest, str_keys=True)
    return msgspec.json.encode(plain, order="sorted")


def decode_manifest(data: bytes) -> Manifest:
    """Return the bundle's manifest in `data`; raises BundleError `manifest` or `schema`."""
    return _decode(data, Manifest)


def decode_delta_manifest(data: bytes) -> DeltaManifest:
    """Return the delta's manifest in `data`; raises BundleError `manifest` or `schema`."""
    return _decode(data, DeltaManifest)


def _decode(data: bytes, kind: type[_Kind]) -> _Kind:
    try:
        manifest = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError("manifest", str(error)) from error
    if manifest.schema > SCHEMA:
        raise BundleError("schema", f"schema {manifest.schema}, this release reads {SCHEMA}")
    return manifest


def new_version(now_ms: int, content_hash: str, *, after: str | None = None) -> str:
    """Return `<UTC>-<hash>`, greater than `after` as a string even when the clock went back.

    Versions order as strings; `after` is the newest version that was ever given out.
    """
    if after is not None:
        now_ms = max(now_ms, version_time_ms(after) + 1)
    seconds, millis = divmod(now_ms, 1000)
    stamp = datetime.fromtimestamp(seconds, UTC).strftime(_STAMP)
    return f"{stamp}{millis:03d}Z-{content_hash[:8]}"


def delta_version(bundle: str, number: int) -> str:
    """Return `<bundle>+<number>`: greater than its bundle, and than any delta before it."""
    if not 1 <= number <= MAX_DELTAS:
        raise ValueError(f"a bundle has deltas 1 to {MAX_DELTAS}, not {number}")
    return f"{bundle}{_PLUS}{number:04d}"


def bundle_of(version: str) -> str:
    """Return the bundle of a version: a delta's parent, else the version itself."""
    return version.partition(_PLUS)[0]


def version_time_ms(version: str) -> int:
    """Return the time in a version; raises ValueError for another form."""
    stamp, _, content_hash = version.partition("Z-")
    if len(stamp) != len("20261123T055644123") or not content_hash:
        raise ValueError(f"{version!r} is no version of the form <UTC>-<hash>")
    moment = datetime.strptime(stamp[:-3], _STAMP).replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1000 + int(stamp[-3:])
