import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli import evaluate as command
from cli.__main__ import app
from cli.settings_errors import SettingsError


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith("NEXTCLICK_"):
            monkeypatch.delenv(name)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Write sessions that walk round a ring of thirty items."""
    lines = ["session_id,item_id,timestamp"]
    for number in range(1_200):
        session, step = number % 10 + number // 120 * 100, number % 120 // 10
        item = (session * 7 + step) % 30
        lines.append(f"s{session},i{item},{1_760_000_000_000 + 6_000 * number}")
    file = tmp_path / "clicks.csv"
    file.write_text("\n".join(lines))
    return file


def evaluate(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_json_is_one_object_on_standard_output(log: Path) -> None:
    result = evaluate(log, "--json", "--frac", "0.2", "-k", "5", "--seed", "3")

    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert report["protocol"] == "static"
    assert report["recall@5"] > 0.5
    assert report["settings"]["seed"] == 3
    assert report["channels"]["rnn"]["recall@5"] > 0.5
    assert report["train_clicks_per_second"] > 0
    assert report["seconds"] > 0
    assert report["log"]["name"] == "clicks"


def test_people_get_figures_channels_and_slices_as_tables(log: Path) -> None:
    result = evaluate(log, "--protocol", "prequential", "--frac", "0.1", "--max-predictions", "50")

    assert result.exit_code == 0
    assert "clicks, prequential" in result.stdout
    assert "95 %" in result.stdout
    for title in ("channel", "popularity", "item age", "session position"):
        assert title in result.stdout
    assert "clicks/s learnt from the stream" in result.stdout


def test_plots_are_written_where_they_are_wanted(log: Path, tmp_path: Path) -> None:
    result = evaluate(log, "--json", "--frac", "0.2", "--plot", tmp_path / "new" / "plots")

    assert result.exit_code == 0
    assert len(list((tmp_path / "new" / "plots").glob("recall_*"))) == 4
    assert "recall_over_time.svg" in result.stderr
    json.loads(result.stdout)


def test_without_matplotlib_it_says_what_to_install_before_it_works(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "evaluation.plots", None)

    result = evaluate(log, "--plot", tmp_path)

    assert result.exit_code == 1
    assert result.stderr == "nextclick: --plot needs matplotlib: pip install nextclick[plot]\n"


def test_a_log_that_cannot_be_used_is_one_clear_line(tmp_path: Path, log: Path) -> None:
    missing = evaluate(tmp_path / "missing.csv")
    nothing_before = evaluate(log, "--days", "300")

    assert (missing.exit_code, nothing_before.exit_code) == (1, 1)
    assert missing.stderr.startswith("nextclick: ")
    assert "no such file" in missing.stderr
    assert "no click lies before the test period" in nothing_before.stderr
    assert len(nothing_before.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--delay", "5"), "--delay needs --protocol prequential"),
        (("--days", "1", "--frac", "0.1"), "give --days or --frac, not both"),
        (("--protocol", "leave-one-out"), "static"),
        (("-k", "0"), "-k"),
    ],
)
def test_flags_that_make_no_sense_are_refused(log: Path, flags: tuple[str, ...], said: str) -> None:
    result = evaluate(log, *flags)

    assert result.exit_code == 2
    assert said in result.stderr


def test_the_help_says_what_may_be_recommended_and_shows_an_example() -> None:
    text = " ".join((command.evaluate.__doc__ or "").split())

    assert "Items of the session, the current one too, may be recommended" in text
    assert "Example: nextclick evaluate" in text


def test_channels_and_diversity_reach_training_and_lists(log: Path) -> None:
    flags = ("--json", "--frac", "0.2", "-k", "5")
    alone = json.loads(evaluate(log, *flags, "--channels", "rnn").stdout)
    joined = json.loads(evaluate(log, *flags, "--channels", "popular,rnn").stdout)
    diverse = json.loads(evaluate(log, *flags, "--channels", "rnn", "--diversity", "0.9").stdout)

    assert alone["settings"]["channels"] == ["rnn"]
    assert joined["settings"]["channels"] == ["rnn", "popular"]
    assert list(alone["channels"]) == ["rnn"]
    assert diverse["settings"]["diversity"] == 0.9
    assert diverse["intra_list_distance"] > alone["intra_list_distance"]


def test_a_channel_that_does_not_exist_is_named_with_those_that_do(log: Path) -> None:
    result = evaluate(log, "--channels", "rnn,magic")

    assert isinstance(result.exception, SettingsError)
    assert (
        "trainer.fusion.channels.1 = magic: must be one of 'rnn', 'knn', 'rules' or 'popular'"
        in (str(result.exception))
    )
