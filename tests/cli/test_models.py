"""`nextclick models`: what it lists, changes, says and returns, against a real broker."""

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner

from cli.__main__ import app
from model.bundle import Bundle, Manifest, publish
from model.catalogue import Catalogue
from model.encoders.families import build_encoder
from model.encoders.session_encoder import EncoderConfig
from model.manifest import GateVerdict
from model.store import Store
from stream.announcements import ModelsTopic, on_trial, withdrawn
from stream.settings import KafkaSettings
from trainer.publish import announcement

TOPICS = ("clicks", "recommendations", "sessions", "models", "dead_letters")
NOWHERE = "127.0.0.1:1"


def version_name(n):
    return f"20261123T{n:09d}Z-{n:08x}"


V1, V2, V3, REFUSED = (version_name(n) for n in (1, 2, 3, 4))


def make_bundle() -> Bundle:
    encoder = build_encoder(EncoderConfig(dim=4)).eval().requires_grad_(False)
    vectors_ND = np.eye(4, dtype=np.float32)
    manifest = Manifest(
        name="default",
        version=V1,
        created_at=1_795_430_400_000,
        encoder_version="e",
        encoder=encoder.config,
        metrics={"recall_at_20": 0.5, "mrr_at_20": 0.25},
        gate=GateVerdict(verdict="accepted", reason="first"),
    )
    return Bundle(
        manifest=manifest,
        encoder=encoder,
        catalogue=Catalogue([f"i{n}" for n in range(4)]),
        vectors_ND=vectors_ND,
        popularity_N=np.ones(4, np.float32),
    )


class Shop:
    """A store of three versions, of which the second follows the first, and a refused one."""

    def __init__(self, url: str) -> None:
        self.store = Store(url)
        self.path = Path(url)
        bundle = make_bundle()
        self.published = {
            version: self._publish(bundle, version=version, parent=parent)
            for version, parent in ((V1, None), (V2, V1), (V3, V1))
        }
        refused = GateVerdict(verdict="refused", reason="mrr: MRR -30.0%")
        self._publish(bundle, version=REFUSED, parent=V3, name="default.refused", gate=refused)

    def _publish(self, bundle, **changes):
        manifest = msgspec.structs.replace(bundle.manifest, **changes)
        return publish(self.store, replace(bundle, manifest=manifest))


@pytest.fixture
def shop(tmp_path, monkeypatch):
    url = str(tmp_path / "models")
    monkeypatch.setenv("NEXTCLICK_STORE__URL", url)
    return Shop(url)


def run(*arguments, servers=NOWHERE):
    return CliRunner().invoke(app, ["models", *arguments, "--bootstrap-servers", servers])


class Live:
    """The command beside a topic in which the third version was announced."""

    def __init__(self, kafka, shop, prefix):
        self._servers = kafka.bootstrap_servers
        settings = KafkaSettings(bootstrap_servers=self._servers)
        self.topic = ModelsTopic(settings, prefix + "models", client_id="test")
        CliRunner().invoke(app, ["topics", "ensure", "--bootstrap-servers", self._servers])
        self.topic.announce(announcement(shop.published[V3]))

    def __call__(self, *arguments):
        return run(*arguments, servers=self._servers)

    def json(self, *arguments):
        result = self(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)

    @property
    def latest(self):
        return self.topic.latest("default")


@pytest.fixture
def live(kafka, topic_names, shop, monkeypatch):
    prefix = topic_names()
    for topic in TOPICS:
        monkeypatch.setenv(f"NEXTCLICK_TOPICS__{topic.upper()}", prefix + topic)
    return Live(kafka, shop, prefix)


def test_without_kafka_the_store_is_listed_and_what_serves_is_unknown(shop):
    table, listed = run("list"), json.loads(run("list", "--json").stdout)

    assert table.exit_code == 0
    assert all(version in table.stdout for version in (V1, V2, V3, REFUSED))
    assert "refused mrr: MRR -30.0%" in table.stdout
    assert "What serves is unknown" in table.stdout
    assert listed["serving"] is None
    assert [row["kind"] for row in listed["versions"]] == ["bundle"] * 3 + ["refused"]
    assert listed["versions"][1] == {
        "version": V2, "kind": "bundle", "serving": None, "on_trial": None,
        "created": "2026-11-23 10:40:00+00:00",
        "items": 4, "verdict": "accepted", "reason": "first", "parent": V1,
        "bytes": shop.published[V2].num_bytes,
        "metrics": {"recall_at_20": 0.5, "mrr_at_20": 0.25},
    }  # fmt: skip


def test_an_empty_store_is_said_to_be_empty(tmp_path, monkeypatch):
    monkeypatch.setenv("NEXTCLICK_STORE__URL", str(tmp_path / "empty"))

    result = run("list")

    assert result.exit_code == 0
    assert "No version of model default is in" in result.stdout


def test_a_version_is_shown_with_its_files(shop):
    table, shown = run("show", REFUSED), json.loads(run("show", V1, "--json").stdout)

    assert table.exit_code == 0
    assert "items.safetensors" in table.stdout
    assert shown["encoder"] == "gru"
    assert shown["uri"] == shop.published[V1].uri
    assert set(shown["files"]["golden.json"]) == {"bytes", "sha256"}


def test_an_unknown_version_is_answered_with_those_that_are_known(shop):
    result = run("show", "nope")

    assert result.exit_code == 1
    assert result.stderr == (
        "nextclick: no version nope of model default is stored; there are: "
        f"{V1}, {V2}, {V3}, {REFUSED}\n"
    )


@pytest.mark.kafka
def test_what_serves_is_marked(live):
    listed = live.json("list")

    assert listed["serving"] == V3
    assert [row["serving"] for row in listed["versions"]] == [False, False, True, False]
    assert "serves" in live("list").stdout
    assert listed["on_trial"] is None


@pytest.mark.kafka
def test_what_some_users_try_is_marked_until_it_is_withdrawn(live, shop):
    live("rollback", "--to", V2)
    trial = on_trial(announcement(shop.published[V3]), 0.05)
    newer = msgspec.structs.replace(trial, version=live.latest.version + "0")

    for sent in (trial, newer, withdrawn(newer, "fewer hits")):
        live.topic.announce(sent)
        seen = live.json("list")["on_trial"]
        assert seen == (newer.version if sent is newer else None)


@pytest.mark.kafka
def test_a_rollback_restores_the_parent_and_another_one_its_parent(live):
    done = live.json("rollback")

    sent = live.latest
    assert done == {
        "version": sent.version, "restores": V1, "replaced": V3, "uri": sent.uri,
    }  # fmt: skip
    assert sent.version > V3
    assert sent.gate.verdict == "restored"
    assert live.json("list")["serving"] == V1
    again = live("rollback")
    assert again.exit_code == 1
    assert f"no version of model default before {V1} is stored" in again.stderr


@pytest.mark.kafka
def test_a_rollback_goes_where_it_is_told(live):
    first = live("rollback", "--to", V2)
    same = live("rollback", "--to", V2)
    refused = live("rollback", "--to", REFUSED)

    assert first.exit_code == 0
    assert first.stdout.startswith(f"Announced {V2} again, as 2")
    assert live.latest.restores == V2
    assert (same.exit_code, same.stderr) == (1, f"nextclick: {V2} serves already\n")
    assert refused.exit_code == 1
    assert f"`nextclick models promote {REFUSED}` lets it" in refused.stderr


@pytest.mark.kafka
def test_a_refused_version_is_promoted_under_a_new_name(live, shop):
    done = live.json("promote", REFUSED)

    sent = live.latest
    assert (sent.version, sent.restores, sent.parent) == (done["version"], None, V3)
    assert sent.gate.reason == "by hand; was mrr: MRR -30.0%"
    assert sent.uri == shop.store.uri("default", sent.version)
    assert live.json("list")["serving"] == sent.version
    assert live.json("rollback")["restores"] == V3


@pytest.mark.kafka
def test_a_damaged_version_is_not_announced(live, shop):
    (shop.path / "default" / V1 / "items.safetensors").write_bytes(b"x")

    result = live("promote", V1)

    assert result.exit_code == 1
    assert result.stderr.startswith("nextclick: size: items.safetensors")
    assert live.latest.version == V3


@pytest.mark.kafka
def test_while_nothing_was_announced_there_is_nothing_to_roll_back(
    kafka, topic_names, shop, monkeypatch
):
    monkeypatch.setenv("NEXTCLICK_TOPICS__MODELS", topic_names() + "models")
    CliRunner().invoke(app, ["topics", "ensure", "--bootstrap-servers", kafka.bootstrap_servers])

    result = run("rollback", servers=kafka.bootstrap_servers)

    assert (result.exit_code, result.stderr) == (
        1, "nextclick: no version of model default serves yet\n",
    )  # fmt: skip
