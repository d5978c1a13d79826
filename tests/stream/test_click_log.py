import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from stream.click_log import ClickLogError, read_click_log

SECONDS = 1_700_000_000


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def write_parquet(path: Path, **columns: object) -> str:
    parquet.write_table(pa.table(columns), path)
    return str(path)


def test_clicks_are_sorted_by_time_and_equal_times_keep_the_file_order(tmp_path: Path) -> None:
    file = write_parquet(
        tmp_path / "log.parquet",
        user_id=["a", "b", "c", "d"],
        item_id=[1, 2, 3, 4],
        ts=[SECONDS * 1000 + late for late in (5, 0, 5, 0)],
    )

    log = read_click_log(file)

    assert log.user_ids == ["b", "d", "a", "c"]
    assert log.item_ids == ["2", "4", "1", "3"]
    assert log.times_ms.tolist() == [SECONDS * 1000 + late for late in (0, 0, 5, 5)]
    assert log.times_ms.dtype == np.int64
    assert log.session_ids is None
    assert len(log) == 4


def test_a_folder_is_read_through_its_events_file(tmp_path: Path) -> None:
    write_parquet(tmp_path / "events.parquet", session_id=[7], item_id=["x"], ts=[SECONDS * 1000])

    assert read_click_log(str(tmp_path)).item_ids == ["x"]


def test_without_a_user_column_the_session_is_the_user(tmp_path: Path) -> None:
    file = write(tmp_path / "log.csv", f"SessionId,ItemId,Time\n1,10,{SECONDS}\n2,11,{SECONDS}\n")

    log = read_click_log(file)

    assert log.user_ids == ["1", "2"]
    assert log.session_ids == ["1", "2"]


def test_csv_ids_stay_text(tmp_path: Path) -> None:
    file = write(tmp_path / "log.csv", f"visitor_id,item_id,timestamp\n007,NA,{SECONDS}\n")

    log = read_click_log(file)

    assert (log.user_ids, log.item_ids) == (["007"], ["NA"])


def test_json_lines_with_users_and_sessions_are_read(tmp_path: Path) -> None:
    line = f'{{"user_id": "u", "session_id": "s", "item_id": 5, "timestamp": {SECONDS}000}}\n'

    log = read_click_log(write(tmp_path / "log.jsonl", line * 3))

    assert log.user_ids == ["u"] * 3
    assert log.session_ids == ["s"] * 3
    assert log.item_ids == ["5"] * 3


@pytest.mark.parametrize(
    "times",
    [
        [SECONDS],
        [float(SECONDS)],
        [SECONDS * 1_000],
        [SECONDS * 1_000_000],
        ["2023-11-14T22:13:20Z"],
        ["2023-11-14T23:13:20+01:00"],
        ["2023-11-14 22:13:20.000"],
        [np.datetime64("2023-11-14T22:13:20", "ns")],
    ],
    ids=["s", "float-s", "ms", "us", "iso-utc", "iso-zone", "iso-naive", "datetime"],
)
def test_times_of_every_form_become_milliseconds(tmp_path: Path, times: list[object]) -> None:
    file = write_parquet(tmp_path / "log.parquet", user_id=["u"], item_id=["i"], timestamp=times)

    assert read_click_log(file).times_ms.tolist() == [SECONDS * 1_000]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_iso_text_is_read_from_text_files(tmp_path: Path, suffix: str) -> None:
    rows = {
        "csv": "user_id,item_id,timestamp\nu,i,2023-11-14T22:13:20.250Z\n",
        "jsonl": '{"user_id": "u", "item_id": "i", "timestamp": "2023-11-14T22:13:20.250Z"}\n',
    }

    log = read_click_log(write(tmp_path / f"log.{suffix}", rows[suffix]))

    assert log.times_ms.tolist() == [SECONDS * 1_000 + 250]


def test_fractions_of_seconds_are_kept(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", user_id=["u"], item_id=["i"], ts=[SECONDS + 0.25])

    assert read_click_log(file).times_ms.tolist() == [SECONDS * 1_000 + 250]


def test_missing_ids_are_refused_with_their_count(tmp_path: Path) -> None:
    file = write(
        tmp_path / "log.csv", f"user_id,item_id,ts\nu,1,{SECONDS}\n,2,{SECONDS}\n,3,{SECONDS}\n"
    )

    with pytest.raises(ClickLogError, match=r"log\.csv: column user_id is empty in 2 of 3 rows"):
        read_click_log(file)


@pytest.mark.parametrize(
    ("header", "named"),
    [
        ("user_id,ts", "no column for item_id; accepted names: item_id, "),
        ("user_id,item_id", "no column for timestamp"),
        ("item_id,ts", "no column for user_id; accepted names: user_id, .*session_id"),
    ],
)
def test_a_missing_column_is_named_with_what_is_accepted(
    tmp_path: Path, header: str, named: str
) -> None:
    with pytest.raises(ClickLogError, match=named):
        read_click_log(write(tmp_path / "log.csv", f"{header}\n1,2\n"))


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"item_id": [1.5]}, "column item_id is double; accepted are text and whole numbers"),
        ({"ts": ["yesterday"]}, "column ts is string and not a time"),
        ({"ts": [True]}, "column ts is bool and not a time"),
        ({"ts": [-5]}, "column ts has times that are negative"),
        ({"ts": [float("nan")]}, "column ts has times that are negative or not finite"),
    ],
)
def test_a_column_of_the_wrong_kind_is_named(
    tmp_path: Path, columns: dict[str, object], named: str
) -> None:
    good: dict[str, object] = {"user_id": ["u"], "item_id": ["i"], "ts": [SECONDS]}

    with pytest.raises(ClickLogError, match=named):
        read_click_log(write_parquet(tmp_path / "log.parquet", **(good | columns)))


def test_paths_that_hold_no_click_log_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ClickLogError, match=r"a folder needs events\.parquet"):
        read_click_log(str(tmp_path))
    with pytest.raises(ClickLogError, match="no such file or folder"):
        read_click_log(str(tmp_path / "none.csv"))
    with pytest.raises(ClickLogError, match=r"accepted are \.parquet, \.csv and \.jsonl"):
        read_click_log(write(tmp_path / "log.xlsx", "x"))
    with pytest.raises(ClickLogError, match=r"cannot be read as \.parquet"):
        read_click_log(write(tmp_path / "broken.parquet", "not parquet"))
    with pytest.raises(ClickLogError, match=r"cannot be read as \.csv"):
        read_click_log(write(tmp_path / "empty.csv", ""))


@pytest.mark.skipif(
    "CLICK_LOGS" not in os.environ,
    reason="CLICK_LOGS names no folder with recorded click logs",
)
def test_recorded_click_logs_are_read() -> None:
    folders = [file.parent for file in Path(os.environ["CLICK_LOGS"]).glob("*/events.parquet")]

    assert folders
    for folder in folders:
        log = read_click_log(str(folder))
        assert len(log) == len(log.user_ids) == len(log.times_ms) > 0
        assert (np.diff(log.times_ms) >= 0).all()
        assert 8e11 < log.times_ms[0] <= log.times_ms[-1] < 4e12
