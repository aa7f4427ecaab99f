"""Names and what they stand for; the automatic choice; the local store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from echopix_cli.cli.model_records import entry_record
from echopix_cli.errors import EchopixError, ModelError, UsageError
from echopix_cli.settings import read_models, resolve
from echopix_cli.weights.opening import recognise
from echopix_cli.weights.packing import METHODS
from echopix_cli.weights.registry import (
    BUNDLED,
    REGISTERED,
    find_model,
    known_models,
    resolve_model,
)
from echopix_cli.weights.store import MANIFEST, Busy, FileFact, Store, sha256_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's config file."""
    file = tmp_path / "config.toml"
    monkeypatch.setenv("ECHOPIX_CONFIG", str(file))
    monkeypatch.setenv("ECHOPIX_CACHE_DIR", str(tmp_path / "cache"))
    return file


def test_the_registered_models_say_what_they_are() -> None:
    by_name = {model.name: model for model in REGISTERED}
    assert by_name["qwen2.5-omni-7b"].licence == "Apache-2.0"
    assert "non-commercial" in by_name["qwen2.5-omni-3b"].licence
    for model in REGISTERED:
        assert model.repository is not None and model.counts is not None and model.download is not None
        assert model.shape is not None and model.shape.context == 32_768
        weights = [model.counts.bytes_as(method) for method in METHODS]
        assert weights == sorted(weights, reverse=True)
        assert model.download == pytest.approx(model.counts.bytes_as("none"), rel=0.01)


def test_the_bundled_model_is_always_there() -> None:
    source = resolve_model(BUNDLED)
    assert source.demonstration
    assert recognise(source.folder) == "EchoingPixels"


@pytest.mark.parametrize(
    ("text", "layout"),
    [
        ('{"model_type": "qwen2_5_omni_compress"}', "EchoingPixels"),
        ('{"model_type": "qwen2_5_omni"}', "Qwen2.5-Omni"),
        ('{"model_type": "qwen2_5_omni_thinker"}', "Qwen2.5-Omni thinker"),
        ('{"model_type": "bert"}', None),
        ("[]", None),
        ("{", None),
        (None, None),
    ],
)
def test_a_folder_is_known_by_its_config_not_its_name(tmp_path: Path, text: str | None, layout: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert recognise(tmp_path) == layout
    assert resolve_model(str(tmp_path)).folder == tmp_path


def test_a_wrong_name_lists_the_right_ones(names: Path) -> None:
    names.write_text('[models]\nmine = "hf:me/sieve"\n')
    with pytest.raises(ModelError) as failed:
        find_model("qwen2.5-omni-7B-instruct")
    assert "did you mean qwen2.5-omni-7b?" in failed.value.hint
    for name in ("tiny", "qwen2.5-omni-3b", "qwen2.5-omni-7b", "mine", "hf:OWNER/REPO"):
        assert name in failed.value.hint
    with pytest.raises(ModelError):
        find_model("x" * 5000)


@pytest.mark.parametrize(
    "text", ["hf:", "hf:alone", "hf:a/b/c", "hf:../b", "hf:a/..", "hf:a/b@", "hf:a/b@x y", "hf:a/b@../c", "hf:a--b/c"]
)
def test_what_is_no_repository(text: str) -> None:
    with pytest.raises(ModelError, match="names no repository"):
        find_model(text)


def test_repositories_and_their_keys() -> None:
    assert find_model("hf:a/b").key == "hub-a--b"
    assert find_model("hf:a/b").source == "hf:a/b"
    assert find_model("hf:a/b@refs/pr/1").key == "hub-a--b@refs%2Fpr%2F1"
    assert find_model("hf:Qwen/Qwen2.5-Omni-3B").key == find_model("qwen2.5-omni-3b").key  # one copy for both


def test_names_of_ones_own(names: Path) -> None:
    (names.parent / "here").mkdir()
    names.write_text('fps = 1.0\n[models]\nmine = "hf:me/sieve@v1"\nhere = "here"\n')
    assert (known_models()["mine"].repository, known_models()["mine"].revision) == ("me/sieve", "v1")
    assert resolve_model("here").folder == names.parent / "here"
    assert resolve({}).settings.fps == 1.0
    with pytest.raises(ModelError, match="mine is not on this machine") as failed:
        resolve_model("mine")
    assert failed.value.hint == "echopix models pull mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('models = "x"', "table of strings"),
        ("[models]\nmine = 3", "table of strings"),
        ('[models]\ntiny = "/x"', "'tiny' cannot be a model's name"),
        ('[models]\nauto = "/x"', "'auto' cannot"),
        ('[models]\n"a b" = "/x"', "'a b' cannot"),
        ('[models]\nmine = "hf:nothing"', "names no repository"),
    ],
)
def test_names_that_cannot_be(names: Path, text: str, said: str) -> None:
    names.write_text(text)
    with pytest.raises(UsageError, match=said):
        known_models()
        read_models()


def test_an_entry_from_writing_to_removing(store: Store) -> None:
    with store.create("nf4-x", kind="quantized", source="a/b", revision="1" * 40, settings={"bits": 4}) as stage:
        assert stage.parent == store.entries and stage.name.startswith(".")
        (stage / "deep").mkdir()
        (stage / "deep" / "w.bin").write_bytes(b"weights")
        assert store.open("nf4-x") is None
    entry = store.open("nf4-x")
    assert entry is not None
    assert entry.folder == store.entries / "nf4-x"
    assert entry.manifest.files == {"deep/w.bin": FileFact(7, sha256_of(entry.folder / "deep" / "w.bin"))}
    assert (entry.manifest.kind, entry.manifest.source, entry.manifest.settings) == ("quantized", "a/b", {"bits": 4})
    assert "torch" in entry.manifest.libraries
    assert store.verify(entry) == []
    assert store.all() == [entry]
    with store.create("nf4-x", kind="quantized", source="a/b", revision=None) as stage:
        (stage / "new").write_bytes(b"")
    replaced = store.open("nf4-x")
    assert replaced is not None and set(replaced.manifest.files) == {"new"}
    store.remove("nf4-x")
    store.remove("nf4-x")
    assert store.open("nf4-x") is None
    assert list(store.entries.iterdir()) == []


def test_nothing_remains_of_an_entry_that_failed(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.create("k", kind="x", source="y", revision=None) as stage:
        (stage / "half").write_bytes(b"half")
        raise KeyboardInterrupt
    assert store.all() == [] and list(store.entries.iterdir()) == []


def test_damage_is_found(store: Store) -> None:
    with store.create("k", kind="x", source="y", revision=None) as stage:
        for name in ("a", "b", "c"):
            (stage / name).write_bytes(b"12345")
    home = store.entries / "k"
    (home / "a").write_bytes(b"12349")
    entry = store.open("k")  # cheap: the length is right
    assert entry is not None
    assert store.verify(entry) == ["a differs from its checksum"]
    (home / "b").write_bytes(b"123")
    (home / "c").unlink()
    with pytest.raises(ModelError, match="b has 3 bytes, not 5"):
        store.open("k")
    assert store.all()[0].faults == ("b has 3 bytes, not 5", "c is missing")
    raw = json.loads((home / MANIFEST).read_text())
    raw["files"] = {"../../x": {"size": 1, "sha256": ""}}
    (home / MANIFEST).write_text(json.dumps(raw))
    with pytest.raises(ModelError, match="outside its folder"):
        store.open("k")
    for text in ("{", "[]", "{}", '{"schema_version": 9}', '{"schema_version": 1, "files": {}, "new": 1}'):
        (home / MANIFEST).write_text(text)
        with pytest.raises(ModelError, match="cannot be read"):
            store.open("k")


@pytest.mark.parametrize("key", ["", ".hidden", "a/b", "../x", "a b", "x" * 300])
def test_keys_stay_in_the_store(store: Store, key: str) -> None:
    with pytest.raises(ValueError, match="is no key"):
        store.open(key)


def test_a_lock_is_held_by_one_process_and_ends_with_it(store: Store) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom echopix_cli.weights.store import Store\n"
        f"with Store(Path({str(store.root)!r})).lock('k'):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with pytest.raises(Busy), store.lock("k", wait=False):
        pass
    with store.lock("another", wait=False):
        pass
    said = []

    def waiting() -> None:
        said.append("waiting")
        process.kill()

    with store.lock("k", waiting):
        assert said == ["waiting"]
    process.wait()


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = Store(tmp_path / "file" / "cache")
    for attempt in (store.lock("k"), store.create("k", kind="x", source="y", revision=None)):
        with pytest.raises(EchopixError, match="cannot write to") as failed, attempt:
            pass
        assert "ECHOPIX_CACHE_DIR" in failed.value.hint
    assert store.all() == [] and store.open("k") is None


@pytest.mark.parametrize(
    ("field", "value"),
    [("settings", None), ("settings", []), ("folder", 7), ("revision", ["a"]), ("libraries", "torch"), ("kind", None),
     ("files", {"w.bin": {"size": "7", "sha256": ""}}), ("files", {"w.bin": {"size": 7, "sha256": None}}),
     ("files", {"w.bin": []}), ("files", [])],
)  # fmt: skip
def test_a_manifest_of_other_kinds_is_damaged(store: Store, field: str, value: object) -> None:
    """Whatever lists, checks or removes entries meets it."""
    with store.create("a", kind="quantized", source="a/b", revision=None) as stage:
        (stage / "w.bin").write_bytes(b"weights")
    path = store.entries / "a" / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    (entry,) = store.all()
    assert len(entry.faults) == 1
    assert (entry.size, entry_record(entry)["state"]) == (0, "damaged")
