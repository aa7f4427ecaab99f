"""Folders and repositories from anywhere: nothing outside them is read, and nothing in them is run."""

from __future__ import annotations

import ast
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from echopix_cli.errors import ExitCode, ModelError
from echopix_cli.weights.checkpoint import open_checkpoint
from echopix_cli.weights.containment import require_contained
from echopix_cli.weights.registry import find_model, resolve_model

READERS_OF_PICKLES = ("pickle", "dill", "joblib", "shelve", "marshal")
READ = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json",
        "generation_config.json", "chat_template.jinja")  # fmt: skip
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(random_checkpoint: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may spoil."""
    copy = tmp_path / "checkpoint"
    shutil.copytree(random_checkpoint, copy)
    return copy


def refusal(folder: Path) -> ModelError:
    """What every way in says, without the file at the other end having been read."""
    with pytest.raises(ModelError) as caught:
        resolve_model(str(folder))
    assert caught.value.exit_code is ExitCode.MODEL and caught.value.hint
    assert "\n" not in caught.value.message
    return caught.value


def test_an_ordinary_folder_is_taken(folder: Path, tmp_path: Path) -> None:
    assert set(READ) <= {path.name for path in folder.iterdir()}
    assert resolve_model(str(folder)).folder == folder
    (tmp_path / "link").symlink_to(folder)
    assert resolve_model(str(tmp_path / "link")).folder == tmp_path / "link"


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_that_leads_out_is_refused(folder: Path, tmp_path: Path, name: str, absolute: bool) -> None:
    """Even to the right bytes: where a link leads can change after it was looked at."""
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (folder / name).rename(outside / name)
    (folder / name).symlink_to(outside / name if absolute else Path("..") / "elsewhere" / name)
    os.utime(outside / name, ns=(1, 1))
    error = refusal(folder)
    assert error.message == f"{folder / name} leads out of its folder, to {outside / name}"
    assert (outside / name).stat().st_atime_ns == 1, "it was read"


def test_links_that_lead_out_are_found_behind_others(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    (folder / "inner").mkdir()
    (folder / "inner" / "a.json").symlink_to(tmp_path / "secret.json")
    (folder / "special_tokens_map.json").symlink_to(Path("inner") / "a.json")
    assert "leads out of its folder" in refusal(folder).message


def test_templates_may_not_come_from_elsewhere(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.jinja").write_text("secret")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "a.jinja").symlink_to(tmp_path / "secret.jinja")
    assert "leads out of its folder" in refusal(folder).message
    shutil.rmtree(folder / "additional_chat_templates")
    (tmp_path / "templates").mkdir()
    (folder / "additional_chat_templates").symlink_to(tmp_path / "templates")
    assert "leads out of its folder" in refusal(folder).message


def test_links_within_the_folder_are_taken(folder: Path) -> None:
    (folder / "real").mkdir()
    for name in READ:
        (folder / name).rename(folder / "real" / name)
        (folder / name).symlink_to(Path("real") / name)
    assert resolve_model(str(folder)).folder == folder


def test_what_is_not_read_may_lie_anywhere(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (folder / "logs").symlink_to(tmp_path / "logs")
    (folder / "optimizer.pt").symlink_to("/nowhere")
    assert resolve_model(str(folder)).folder == folder


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_what_is_no_file_is_not_waited_for(folder: Path, kind: str) -> None:
    (folder / "config.json").unlink()
    if kind == "pipe":
        os.mkfifo(folder / "config.json")
    elif kind == "folder":
        (folder / "config.json").mkdir()
    else:
        (folder / "config.json").symlink_to("/dev/zero")
    said = refusal(folder).message
    assert ("leads out" if kind == "device" else "not a file") in said


def test_links_in_a_circle_and_to_nothing_are_explained_by_whoever_needs_them(folder: Path) -> None:
    from echopix_cli.weights.checkpoint import read_config

    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("config.json")
    require_contained(folder)
    with pytest.raises(ModelError, match="cannot read"):
        read_config(folder)


# The hub's cache, as its library lays it out.


def hub_layout(checkpoint: Path, cache: Path) -> Path:
    """A checkpoint as a commit's folder of the hub's cache: links to blobs of the same repository."""
    home = cache / "models--someone--omni"
    snapshot = home / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir()
    for number, path in enumerate(sorted(checkpoint.iterdir())):
        blob = home / "blobs" / f"{number:040x}"
        shutil.copyfile(path, blob)
        (snapshot / path.name).symlink_to(Path("..") / ".." / "blobs" / blob.name)
    return snapshot


def test_a_commits_folder_of_the_hubs_cache_is_taken(random_checkpoint: Path, tmp_path: Path) -> None:
    from echopix_cli.engine import Engine

    snapshot = hub_layout(random_checkpoint, tmp_path / "hub")
    assert resolve_model(str(snapshot)).folder == snapshot
    (tmp_path / "moved").symlink_to(tmp_path / "hub")  # a cache on another disk
    through = tmp_path / "moved" / snapshot.relative_to(tmp_path / "hub")
    assert Engine.load(str(through), "cpu").facts.parameters > 0


@pytest.mark.parametrize("target", ["another repository", "outside", "blobs elsewhere"])
def test_a_folder_laid_out_like_the_cache_cannot_lead_out_of_it(
    random_checkpoint: Path, tmp_path: Path, target: str
) -> None:
    snapshot = hub_layout(random_checkpoint, tmp_path / "hub")
    home = snapshot.parent.parent
    if target == "blobs elsewhere":
        (home / "blobs").rename(tmp_path / "private")
        (home / "blobs").symlink_to(tmp_path / "private")
    else:
        other = (tmp_path / "hub" / "models--a--b" if target == "another repository" else tmp_path) / "blobs"
        other.mkdir(parents=True)
        (other / "x").write_text("{}")
        (snapshot / "config.json").unlink()
        (snapshot / "config.json").symlink_to(other / "x")
    assert "leads out of its folder" in refusal(snapshot).message


# Names that stand in files.


def write_index(folder: Path, name: str) -> None:
    """An index that names a shard, in place of the one file of weights."""
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"thinker.lm_head.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("name", ["../b.safetensors", "/etc/passwd", "sub/b.safetensors", "..", ".", "",
                                  "/tmp/b.safetensors"])  # fmt: skip
def test_an_index_cannot_name_files_elsewhere(folder: Path, name: str) -> None:
    write_index(folder, name)
    with pytest.raises(ModelError, match="names a shard"):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "a.pt", "model.ckpt", "model.safetensors.pkl"])
def test_an_index_cannot_name_pickles(folder: Path, name: str) -> None:
    plant_pickle(folder / name)
    write_index(folder, name)
    with pytest.raises(ModelError, match="no safetensors file"):
        open_checkpoint(folder)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("key", ["tokenizer_file", "vocab_file", "merges_file", "spm_file", "fast_tokenizer_files"])
@pytest.mark.parametrize("name", ["/etc/passwd", "../tokenizer.1.0.json", "a/../../tokenizer.1.0.json", ".."])
def test_a_tokenizer_cannot_name_files_elsewhere(folder: Path, key: str, name: str) -> None:
    path = folder / "tokenizer_config.json"
    raw = json.loads(path.read_text())
    raw[key] = [name] if key.endswith("files") else name
    path.write_text(json.dumps(raw))
    assert refusal(folder).message == f"{path} names a file outside its folder: {name!r}"
    raw[key] = ["tokenizer.1.0.json"] if key.endswith("files") else "tokenizer.json"
    path.write_text(json.dumps(raw))
    assert resolve_model(str(folder)).folder == folder


@pytest.mark.parametrize("text", ["[]", "{", "7", '{"tokenizer_file": 7, "fast_tokenizer_files": [7, null]}'])
def test_a_tokenizers_configuration_of_any_shape_is_looked_at(folder: Path, text: str) -> None:
    (folder / "tokenizer_config.json").write_text(text)
    require_contained(folder)


# Nothing is run.


class _Planted:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def plant_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(_Planted(path.parent / "ran")))


def test_the_planted_pickle_would_run(tmp_path: Path) -> None:
    plant_pickle(tmp_path / "a.bin")
    pickle.loads((tmp_path / "a.bin").read_bytes())
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("beside", [True, False])
def test_pickles_are_never_opened(folder: Path, beside: bool) -> None:
    """Beside safetensors they are ignored; alone, or under a safetensors name, they are refused."""
    from echopix_cli.engine import Engine

    for name in ("pytorch_model.bin", "model.pt", "spk_dict.pt", "training_args.bin"):
        plant_pickle(folder / name)
    if beside:
        assert Engine.load(str(folder), "cpu").facts.parameters > 0
    else:
        plant_pickle(folder / "model.safetensors")
        with pytest.raises(ModelError, match="cannot read"):
            Engine.load(str(folder), "cpu")
        (folder / "model.safetensors").unlink()
        with pytest.raises(ModelError, match="holds neither"):
            Engine.load(str(folder), "cpu")
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_in_a_checkpoint_is_never_run(folder: Path, file: str) -> None:
    from echopix_cli.engine import Engine

    mark = folder / "ran"
    for name in ("evil", "modeling_evil", "tokenization_evil"):
        (folder / f"{name}.py").write_text(f"from pathlib import Path\nPath({str(mark)!r}).touch()\nclass Evil: ...\n")
    raw = json.loads((folder / file).read_text())
    raw["auto_map"] = {"AutoConfig": "evil.Evil", "AutoModel": "modeling_evil.Evil",
                       "AutoTokenizer": ["tokenization_evil.Evil", "tokenization_evil.Evil"]}  # fmt: skip
    if file == "tokenizer_config.json":
        raw["tokenizer_class"] = "Evil"
    (folder / file).write_text(json.dumps(raw))
    try:
        Engine.load(str(folder), "cpu")
    except ModelError as error:
        assert error.message
    assert not mark.exists()


def test_a_template_cannot_reach_into_python(folder: Path) -> None:
    from echopix_cli.engine import Engine

    mark = folder / "ran"
    call = "{{ cycler.__init__.__globals__.os.system('touch " + str(mark) + "') }}"
    (folder / "chat_template.jinja").write_text(call)
    with pytest.raises(ModelError):
        Engine.load(str(folder), "cpu")
    assert not mark.exists()


def test_no_source_file_can_unpickle_or_trust_remote_code() -> None:
    """In the whole package: no pickle, no torch.load, no eval or exec, no code from checkpoints.

    But for messages between processes of ours, over a socket that nobody else holds: whoever could write there has
    the same rights already.
    """
    found = []
    for path in sorted((ROOT / "echopix_cli").rglob("*.py")):
        if path == ROOT / "echopix_cli" / "decoding" / "channel.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                bad = [
                    name for name in names if name.split(".")[0] in ("pickle", "dill", "joblib", "shelve", "marshal")
                ]
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                trusted = [
                    ast.unparse(word)
                    for word in node.keywords
                    if word.arg in ("trust_remote_code", "allow_pickle") and ast.unparse(word.value) != "False"
                ]
                bad = [called] if called in ("torch.load", "eval", "exec", "compile", "yaml.load") else trusted
            else:
                bad = []
            found += [f"{path.name}:{node.lineno}: {what}" for what in bad]
    assert found == []


def test_no_source_file_imports_bitsandbytes_but_the_one_that_guards_it() -> None:
    found = []
    for path in sorted((ROOT / "echopix_cli").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                found += [path.name for name in names if name.split(".")[0] == "bitsandbytes"]
    assert found == ["packing.py"]


def test_quantizing_fetches_no_native_code(tmp_path: Path) -> None:
    """On processors with bfloat16 instructions bitsandbytes asks ``kernels`` for code from the hub. Planted here is
    what does the same on every processor."""
    for name, text in {
        "kernels": f"from pathlib import Path\nPath({str(tmp_path / 'asked')!r}).touch()\n",
        "bitsandbytes": "import logging\ntry:\n    from kernels import get_kernel\n"
        "except Exception as error:\n    logging.getLogger(__name__).warning('Failed to load: %s', error)\n",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    program = (
        "import sys; from echopix_cli.weights.packing import bitsandbytes; library = bitsandbytes()\n"
        f"assert library.__file__.startswith({str(tmp_path)!r}) and 'kernels' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / "asked").exists()


@pytest.mark.parametrize("name", ["hf:a/../b", "hf:../../etc", "hf:a/b@../../x", "hf:/etc/passwd", "hf:a\\b/c"])
def test_a_repositorys_name_cannot_leave_the_cache(name: str) -> None:
    with pytest.raises(ModelError, match="names no repository"):
        find_model(name)
