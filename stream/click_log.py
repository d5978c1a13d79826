"""Reads recorded clicks from a file into columns; the only place that knows pyarrow.

Accepts `.parquet`, `.csv` and `.jsonl` files, or a folder with an `events.parquet`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv, json, parquet

from stream.validation import in_milliseconds

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "user_id": ("user_id", "userid", "user", "visitor_id", "visitorid", "visitor", "customer_id"),
    "session_id": ("session_id", "sessionid", "session"),
    "item_id": ("item_id", "itemid", "item", "product_id", "article_id"),
    "timestamp": ("timestamp", "ts", "time", "event_time", "datetime"),
}
"""Accepted names of each column, in order of preference, in any letter case."""

FOLDER_FILE: Final = "events.parquet"


class ClickLogError(ValueError):
    """The file cannot be read as clicks; the text names file, column and what is accepted."""


@dataclass(frozen=True)
class ClickLog:
    """Recorded clicks as columns of equal length, sorted by time (equal times in file order)."""

    user_ids: list[str]
    session_ids: list[str] | None
    item_ids: list[str]
    times_ms: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of clicks."""
        return len(self.item_ids)


def read_click_log(path: str) -> ClickLog:
    """Read the clicks of a file or folder; without a user column the session is the user.

    Times are unix s, ms or µs (told by the range of the newest), date-times, or ISO 8601 text;
    those without a zone are taken as UTC.
    """
    file = _find(Path(path))
    try:
        table, names = _read(file)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ClickLogError(f"{file}: cannot be read as {file.suffix}: {error}") from error
    times_ms = _times(file, names["timestamp"], table.column(names["timestamp"]))
    order_n = np.argsort(times_ms, kind="stable")
    ids = {
        role: _texts(file, name, table.column(name), order_n)
        for role, name in names.items()
        if role != "timestamp"
    }
    return ClickLog(
        user_ids=ids.get("user_id") or ids["session_id"],
        session_ids=ids.get("session_id"),
        item_ids=ids["item_id"],
        times_ms=times_ms[order_n],
    )


def _find(path: Path) -> Path:
    """Return the file to read."""
    file = path / FOLDER_FILE if path.is_dir() else path
    if not file.is_file():
        wanted = f"a folder needs {FOLDER_FILE}" if path.is_dir() else "no such file or folder"
        raise ClickLogError(f"{path}: {wanted}")
    if file.suffix not in {".parquet", ".csv", ".jsonl"}:
        raise ClickLogError(f"{file}: accepted are .parquet, .csv and .jsonl")
    return file


def _read(file: Path) -> tuple[Any, dict[str, str]]:
    """Return the table, and the name that each role has in it."""
    if file.suffix == ".parquet":
        names = _roles(file, parquet.read_schema(file).names)
        return parquet.ParquetFile(file).read(columns=list(names.values())), names
    if file.suffix == ".jsonl":
        table = json.read_json(file)
        return table, _roles(file, table.schema.names)
    with csv.open_csv(file) as reader:
        names = _roles(file, reader.schema.names)
    ids = {name: pa.string() for role, name in names.items() if role != "timestamp"}
    # Ids stay text, so that 007 is not 7; only an empty field is missing, not an item called NA.
    options = csv.ConvertOptions(
        include_columns=list(names.values()),
        column_types=ids,
        null_values=[""],
        strings_can_be_null=True,
    )
    return csv.read_csv(file, convert_options=options), names


def _roles(file: Path, present: list[str]) -> dict[str, str]:
    """Match the columns of the file with what they mean."""
    by_lower = {name.lower(): name for name in reversed(present)}
    names: dict[str, str] = {}
    for role, accepted in COLUMNS.items():
        found = [by_lower[name] for name in accepted if name in by_lower]
        if found:
            names[role] = found[0]
    for role in ("item_id", "timestamp"):
        if role not in names:
            raise _missing(file, role, COLUMNS[role], present)
    if "user_id" not in names and "session_id" not in names:
        raise _missing(file, "user_id", COLUMNS["user_id"] + COLUMNS["session_id"], present)
    return names


def _missing(file: Path, role: str, accepted: tuple[str, ...], present: list[str]) -> ClickLogError:
    return ClickLogError(
        f"{file}: no column for {role}; accepted names: {', '.join(accepted)};"
        f" the file has: {', '.join(present)}"
    )


def _refuse_nulls(file: Path, name: str, column: Any) -> None:
    if column.null_count:
        raise ClickLogError(
            f"{file}: column {name} is empty in {column.null_count} of {len(column)} rows;"
            " accepted are only complete rows"
        )


def _texts(file: Path, name: str, column: Any, order_n: NDArray[np.int64]) -> list[str]:
    """Return ids as text; equal ids share one string, since logs repeat them millions of times."""
    _refuse_nulls(file, name, column)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if not (
        pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
    ):
        raise ClickLogError(f"{file}: column {name} is {kind}; accepted are text and whole numbers")
    encoded = column.combine_chunks().cast(pa.string()).dictionary_encode()
    distinct = np.array(encoded.dictionary.to_pylist(), dtype=object)
    texts: list[str] = distinct[encoded.indices.to_numpy()[order_n]].tolist()
    return texts


def _times(file: Path, name: str, column: Any) -> NDArray[np.int64]:
    """Return times in ms since the epoch."""
    _refuse_nulls(file, name, column)
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _numbers_in_ms(file, name, column.to_numpy())
    try:
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            column = _parsed(column)
        in_ms = pc.cast(column, pa.timestamp("ms", column.type.tz), safe=False)
    except (pa.ArrowException, AttributeError) as error:
        raise ClickLogError(
            f"{file}: column {name} is {kind} and not a time; accepted are unix s, ms or µs,"
            f" date-times and ISO 8601 text ({error})"
        ) from error
    return np.asarray(in_ms.cast(pa.int64()).to_numpy(), dtype=np.int64)


def _parsed(column: Any) -> Any:
    """Read ISO 8601 text, with a zone in every row or in none."""
    try:
        return pc.cast(column, pa.timestamp("ms", "UTC"))
    except pa.ArrowInvalid:
        return pc.cast(column, pa.timestamp("ms"))


def _numbers_in_ms(file: Path, name: str, values_n: NDArray[Any]) -> NDArray[np.int64]:
    """Scale unix times to ms, their unit told by the newest as for live clicks."""
    if not len(values_n):
        return np.empty(0, dtype=np.int64)
    if not np.isfinite(values_n).all() or values_n.min() < 0 or values_n.max() >= 2**63:
        raise ClickLogError(f"{file}: column {name} has times that are negative or not finite")
    newest = int(values_n.max())
    if in_milliseconds(newest) > newest:
        return np.asarray(np.rint(values_n * 1_000), dtype=np.int64)
    if in_milliseconds(newest) < newest:
        return np.asarray(values_n // 1_000, dtype=np.int64)
    return np.asarray(values_n, dtype=np.int64)
