import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry

from cli.settings import Settings
from trainer.metrics import TrainerMetrics
from worker.metrics import WorkerMetrics

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BOARDS = runpy.run_path(str(DEPLOY / "grafana" / "boards.py"))
PROMETHEUS = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
RULES = [
    rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
SAMPLES = {
    "counter": ("_total",),
    "gauge": ("",),
    "histogram": ("_bucket", "_sum", "_count"),
}


def exported() -> dict[str, set[str]]:
    """Every series name of both roles with its labels."""
    series: dict[str, set[str]] = {}
    for role in (WorkerMetrics, TrainerMetrics):
        registry = CollectorRegistry()
        metrics = role(registry)
        labels = {
            metric._name: set(metric._labelnames)
            for metric in vars(metrics).values()
            if hasattr(metric, "_labelnames")
        }
        for family in registry.collect():
            for ending in SAMPLES[family.type]:
                known = series.setdefault(family.name + ending, {"job", "instance", "le"})
                known.update(labels.get(family.name, set()))
    return series


def expressions() -> list[tuple[str, str]]:
    panels = [
        (f"{name}: {panel.title}", expression)
        for name, (_, panels) in BOARDS["BOARDS"].items()
        for panel in panels
        for expression, _ in panel.queries
    ]
    return panels + [(rule["alert"], rule["expr"]) for rule in RULES]


def selectors(expression: str) -> list[Any]:
    found: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found


@pytest.mark.parametrize("name", list(BOARDS["BOARDS"]))
def test_a_board_file_is_what_its_table_says(name: str) -> None:
    checked_in = (DEPLOY / "grafana" / "boards" / f"{name}.json").read_text()

    assert BOARDS["text"](name) == checked_in, "run python deploy/grafana/boards.py"


@pytest.mark.parametrize("name", list(BOARDS["BOARDS"]))
def test_panels_do_not_overlap_and_queries_have_distinct_letters(name: str) -> None:
    panels = json.loads(BOARDS["text"](name))["panels"]

    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        own = {
            (place["x"] + right, place["y"] + down)
            for right in range(place["w"])
            for down in range(place["h"])
        }
        assert not own & cells
        assert place["x"] + place["w"] <= 24
        cells |= own
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)


@pytest.mark.parametrize(("name", "expression"), expressions())
def test_an_expression_asks_for_series_and_labels_that_are_exported(
    name: str, expression: str
) -> None:
    series = exported()

    found = selectors(expression)

    assert found
    for selector in found:
        assert selector.name in series
        assert {matcher.name for matcher in selector.matchers.matchers} <= series[selector.name]
    grouped = re.findall(r"by \(([^)]*)\)", expression)
    known = set().union(*(series[selector.name] for selector in found))
    assert {label.strip() for labels in grouped for label in labels.split(",")} <= known


def test_legends_name_only_labels_that_the_expression_keeps() -> None:
    for _, panels in BOARDS["BOARDS"].values():
        for panel in panels:
            for expression, legend in panel.queries:
                kept = ",".join(re.findall(r"by \(([^)]*)\)", expression))
                assert set(re.findall(r"{{(\w+)}}", legend)) <= set(re.split(r"[, ]+", kept))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_urgent_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"page", "ticket"}
    page = ROOT / rule["annotations"]["runbook"]
    assert rule["alert"] in page.read_text()


def test_every_alert_has_a_case_in_the_rule_tests() -> None:
    cases = yaml.safe_load((DEPLOY / "prometheus" / "rules_test.yml").read_text())["tests"]

    raised = {
        check["alertname"]
        for case in cases
        for check in case["alert_rule_test"]
        if check.get("exp_alerts")
    }

    assert raised == {rule["alert"] for rule in RULES}


def test_prometheus_scrapes_the_ports_of_both_roles() -> None:
    ports = {
        job["job_name"]: job["dns_sd_configs"][0]["port"] for job in PROMETHEUS["scrape_configs"]
    }

    metrics = Settings().metrics
    assert ports == {"worker": metrics.worker_port, "trainer": metrics.trainer_port}


@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("test", "rules", "rules_test.yml")],
    ids=lambda arguments: " ".join(arguments),
)
def test_promtool_accepts_configuration_and_rules(arguments: tuple[str, ...]) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")

    done = subprocess.run(
        [promtool, *arguments],
        cwd=DEPLOY / "prometheus",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
