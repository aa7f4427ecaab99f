"""Model folders made to exhaust, to crash, to lie or to run code, by number.

    python tests/fuzz/hostile_folders.py --count 300 --seed 1

``echopix ask`` is given each, in a process whose memory and time are watched. It must end in an answer (exit code 0) or
in one clear error: of the model (3), or that it does not fit (5). The first numbers are the folders of :data:`NAMED`,
made for one purpose each; the others have values of their files replaced at random.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from harness import GOOD, QUESTION, Ending, Worker  # noqa: E402
from mutate import DEMO, ROOT  # noqa: E402

BASE = ROOT / "echopix_cli" / "assets" / "tiny"
MEMORY = 2 * 2**30  # bytes resident; the model and its libraries take a quarter of it
LIMIT = 60.0  # seconds
INDEX = "model.safetensors.index.json"
MARK = str(Path(tempfile.gettempdir()) / "echopix-folder-was-here")
Spoil = Callable[[Path], object]


def _text(name: str, content: str | bytes) -> Spoil:
    data = content if isinstance(content, bytes) else content.encode()

    def spoil(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(data)

    return spoil


def _json(name: str, change: Callable[[Any], object]) -> Spoil:
    def spoil(folder: Path) -> None:
        raw = json.loads((folder / name).read_text())
        change(raw)
        _text(name, json.dumps(raw))(folder)

    return spoil


def _set(value: object, *keys: str | int) -> Callable[[Any], None]:
    def change(raw: Any) -> None:
        for key in keys[:-1]:
            raw = raw[key]
        raw[keys[-1]] = value

    return change


def _config(value: object, *keys: str) -> Spoil:
    return _json("config.json", _set(value, "thinker_config", *keys))


def _header(change: Callable[[dict[str, Any]], object], tail: bytes = b"") -> Spoil:
    """Weights with another header over the same bytes."""

    def spoil(folder: Path) -> None:
        data = (folder / "model.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        raw = json.loads(data[8 : 8 + length])
        changed = change(raw)
        made = changed if isinstance(changed, bytes) else json.dumps(raw).encode()
        _text("model.safetensors", struct.pack("<Q", len(made)) + made + data[8 + length :] + tail)(folder)

    return spoil


def _weights(name: str, value: float, everywhere: bool = False) -> Spoil:
    """Weights with another number in a tensor."""

    def spoil(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        for key in tensors:
            if key.endswith(name):
                tensors[key] = tensors[key].clone()
                tensors[key].view(-1)[slice(None) if everywhere else slice(-1, None)] = value
        (folder / "model.safetensors").unlink()
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / "model.safetensors")

    return spoil


def _integers(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        import torch
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        for key in tensors:
            if key.endswith(name):
                tensors[key] = torch.ones_like(tensors[key], dtype=torch.int16)
        (folder / "model.safetensors").unlink()
        save_file(tensors, folder / "model.safetensors")

    return spoil


_NESTED = "[" * 100_000
TEMPLATES = {
    "long text": "{{ 'a' * 10**10 }}", "large number": "{{ (9**9)**(9**9) }}",
    "wide number": "{{ '%1000000000d' % 1 }}",
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "doubling": "{% set x = namespace(v='a') %}{% for i in range(60) %}{% set x.v = x.v + x.v %}{% endfor %}{{ x.v }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "deep": "{{ " + "(" * 50_000 + "1" + ")" * 50_000 + " }}",
    "endless": "{% for i in range(99999) %}{{ 'a' * 100000 }}{% endfor %}",
    "syntax": "{% for %}", "error": "{{ 1 / 0 }}",
    "escape": "{{ cycler.__init__.__globals__.os.system('touch " + MARK + "') }}", "nothing": "", "no place": "hello",
    "import": "{% include '/etc/passwd' %}", "center": "{{ 'a' | center(10**10) }}", "list": "{{ [0] * 10**10 }}",
    "format": "{{ '{0.__class__}'.format(1) }}", "huge": "a" * 2_000_000, "many": "{{ x }}" * 100_000,
    "refuses": "{{ raise_exception('no \x1b[31mred') }}", "no tokens": "{{ messages[0].content }}",
}  # fmt: skip
_REPLACE = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}
_PARTS: dict[str, tuple[str, object]] = {
    "normalizer grows": ("normalizer", {"type": "Sequence", "normalizers": [_REPLACE] * 6}),
    "normalizer pattern": ("normalizer", {"type": "Replace", "pattern": {"Regex": "(a|a)*$"}, "content": ""}),
    "normalizer prepends": ("normalizer", {"type": "Prepend", "prepend": "a" * 10**6}),
    "normalizer charsmap": ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA" * 99}),
    "normalizer unknown": ("normalizer", {"type": "Nothing"}), "normalizer number": ("normalizer", 7),
    "splits": ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(\\w+\\s?)+$"}, "behavior": "Isolated",
                                 "invert": False}),
    "decoder grows": ("decoder", {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 10**7}),
    "pads": ("padding", {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                         "pad_type_id": 0, "pad_token": "x"}),
    "cuts": ("truncation", {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 5}),
    "adds": ("post_processor", {"type": "TemplateProcessing", "pair": [], "special_tokens": {},
                                "single": [{"Sequence": {"id": "A", "type_id": 0}}] * 9999}),
    "model unigram": ("model", {"type": "Unigram", "vocab": [["a", -1.0]], "unk_id": 9}),
    "model empty": ("model", {"type": "BPE", "vocab": {}, "merges": []}), "model null": ("model", None),
    "added large id": ("added_tokens", [{"id": 2**31, "content": "x", "single_word": False, "lstrip": False,
                                         "rstrip": False, "normalized": False, "special": True}]),
    "added long": ("added_tokens", [{"id": 9, "content": "x" * 10**6, "single_word": False, "lstrip": False,
                                     "rstrip": False, "normalized": False, "special": True}]),
    "added numbers": ("added_tokens", [1, 2]), "version": ("version", "9.9"),
}  # fmt: skip


def _named() -> Iterator[tuple[str, Spoil]]:
    yield "as it is", lambda folder: None
    for name, template in TEMPLATES.items():
        yield f"template {name}", _text("chat_template.jinja", template)
    for name, (section, value) in _PARTS.items():
        yield f"tokenizer {name}", _json("tokenizer.json", _set(value, section))
    yield "tokenizer word of a large number", _json("tokenizer.json", _set(10**9, "model", "vocab", "zz"))
    yield "tokenizer of more words than rows", _json("tokenizer.json", _set(5000, "model", "vocab", "zz"))
    yield "tokenizer merges of unknown words", _json("tokenizer.json", _set([["q", "zzz"]], "model", "merges"))
    for key, value in (("chat_template", 7), ("chat_template", [{"name": "default", "template": "{{ 'a' * 10**10 }}"}]),
                       ("tokenizer_class", "../x"), ("tokenizer_class", 7), ("model_max_length", "x"),
                       ("eos_token", 7), ("clean_up_tokenization_spaces", True),
                       ("added_tokens_decoder", {"1000000000": {"content": "x"}}),
                       ("extra_special_tokens", {"x": _NESTED[:500]}),
                       ("auto_map", {"AutoTokenizer": ["a.B", "a.B"]})):  # fmt: skip
        yield f"tokenizer_config {key} {str(value)[:20]}", _json("tokenizer_config.json", _set(value, key))
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json",
                 "preprocessor_config.json"):  # fmt: skip
        for what, content in (("page", b"<!DOCTYPE html><p>Log in"), ("nothing", b""), ("deep", _NESTED.encode()),
                              ("list", b"[]"), ("null", b"null"), ("bytes", bytes(range(256))), ("nan", b'{"a": NaN}'),
                              ("deep objects", b'{"a":' * 99_999)):  # fmt: skip
            yield f"{name} is {what}", _text(name, content)
    yield "config.json of a gigabyte", lambda folder: os.truncate(_fresh(folder, "config.json"), 2**30)
    yield "tokenizer.json of a gigabyte", lambda folder: os.truncate(_fresh(folder, "tokenizer.json"), 2**30)
    for stop in (-1, 10**10, 1.5, "x", [[1]], {"a": 1}, [0] * 99_999, None):
        yield f"eos_token_id {str(stop)[:20]}", _json("generation_config.json", _set(stop, "eos_token_id"))
    for key, value in (("image_mean", [1, 2]), ("image_mean", "abc"), ("image_std", [0, 0, 0]),
                       ("image_std", [1e999] * 3), ("video_min_pixels", 10**12),
                       ("video_max_pixels", -5), ("video_max_pixels", "x")):  # fmt: skip
        yield f"preprocessor {key} {value}", _json("preprocessor_config.json", _set(value, key))
    for size in (10**8, 10**9, 10**18, 0, -1, 1.5, "7", None, [1], True):
        for keys in (("text_config", "num_hidden_layers"), ("text_config", "hidden_size"),
                     ("text_config", "vocab_size"), ("audio_config", "n_window"),
                     ("vision_config", "depth")):  # fmt: skip
            yield f"{keys[-1]} {size}", _config(size, *keys)
    for keys in (("text_config", "num_hidden_layers"), ("text_config", "av_refiner_layers"), ("vision_config", "depth"),
                 ("audio_config", "encoder_layers"), ("text_config", "intermediate_size"),
                 ("text_config", "hidden_size"), ("audio_config", "n_window")):  # fmt: skip
        yield f"{keys[-1]} of a large model", _config(200, *keys)
    yield "quantized by nothing", _json("config.json", _set({"quant_method": "x"}, "quantization_config"))
    yield "quantized as nf4, and is not", _json(
        "config.json", _set({"quant_method": "bitsandbytes", "bnb_4bit_quant_type": "nf4", "load_in_4bit": True},
                            "quantization_config")
    )  # fmt: skip
    for value in (float("nan"), float("inf")):
        for name in ("embed_tokens.weight", "lm_head.weight", "model.norm.weight", "score_head.2.bias", "q_proj.weight",
                     "conv1.weight", "patch_embed.proj.weight"):  # fmt: skip
            yield f"weights {value} in {name}", _weights(name, value)
    yield "weights too large", _weights("embed_tokens.weight", 6e4, everywhere=True)
    for name in ("lm_head.weight", "layers.0.mlp.gate_proj.weight"):
        yield f"integers in {name}", _integers(name)
    for name, made in {
        "empty": b"", "nothing": b"{}", "list": b"[]", "deep": _NESTED.encode(), "bytes": bytes(range(256)),
        "deep objects": b'{"a":' * 9999, "not a tensor": b'{"thinker.lm_head.weight": 7}',
    }.items():  # fmt: skip
        yield f"header {name}", _header(lambda raw, made=made: made)
    yield "header of 10**18 bytes", _text("model.safetensors", struct.pack("<Q", 10**18) + b"{}")
    yield "header of 90 MB", lambda folder: os.truncate(_started(folder, 90 * 2**20), 91 * 2**20)
    layers = "thinker.model.layers."
    entry = {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}
    yield (
        "header of many tensors",
        _header(lambda raw: raw.update({f"{layers}{n}.x": entry for n in range(200_000)})),
    )
    yield "header of many strangers", _header(lambda raw: raw.update({f"x{n}": entry for n in range(50_000)}))
    for name, value in {"shape": [2**40, 2**40], "dtype": "I64", "data_offsets": [0, 2**60]}.items():
        yield (
            f"header lies of {name}",
            _header(lambda raw, n=name, v=value: raw["thinker.lm_head.weight"].update({n: v})),
        )
    yield (
        "header overlaps",
        _header(lambda raw: [raw[name].update(data_offsets=[0, 2]) for name in raw if name != "__metadata__"]),
    )
    yield (
        "index of many names",
        _index(json.dumps({"weight_map": {f"thinker.model.x{n}": "a.safetensors" for n in range(100_000)}})),
    )
    for name, value in (("list", []), ("numbers", {"thinker.a": 7}), ("outside", {"thinker.a": "../x.safetensors"}),
                        ("itself", {"thinker.a": INDEX}), ("nothing", {})):  # fmt: skip
        yield f"index {name}", _index(json.dumps({"weight_map": value}))
    yield "index deep", _index(_NESTED)


def _index(content: str) -> Spoil:
    """An index in the place of the one file of weights, which is a shard then."""

    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "a.safetensors")
        (folder / INDEX).write_text(content)

    return spoil


def _fresh(folder: Path, name: str) -> Path:
    (folder / name).unlink()
    (folder / name).touch()
    return folder / name


def _started(folder: Path, header: int) -> Path:
    path = _fresh(folder, "model.safetensors")
    path.write_bytes(struct.pack("<Q", header) + b" ")
    return path


NAMED: dict[str, Spoil] = dict(_named())
_VALUES: tuple[Any, ...] = (
    None, True, 0, 1, -1, 2, 3, 7, 1000, 10**6, 10**9, 2**31, 2**63, 10**40, 0.5, -0.5, 1e308, float("nan"),
    float("inf"), "", "x", "\ud800", "a" * 10_000, [], [1], [None], {}, {"a": {}},
)  # fmt: skip


def _random(number: int, seed: int) -> tuple[str, Spoil]:
    """Some values of one of the JSON files replaced by others."""
    chance = random.Random(f"{seed}:{number}")
    file = chance.choice(["config.json"] * 6 + ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"])
    made = []

    def spoil(folder: Path) -> None:
        raw = json.loads((folder / file).read_text())
        for _ in range(chance.choice([1, 1, 1, 2, 5])):
            at = raw
            while True:
                key = chance.choice(sorted(at) if isinstance(at, dict) else range(len(at)))
                if isinstance(at[key], (dict, list)) and at[key] and chance.random() < 0.93:
                    at = at[key]
                    continue
                at[key] = chance.choice(_VALUES)
                made.append(f"{key}={str(at[key])[:20]!r}")
                break
        _text(file, json.dumps(raw))(folder)

    return f"{file} {number}", spoil


def folders(count: int, seed: int) -> Iterator[tuple[str, Spoil]]:
    """The first ``count`` hostile folders."""
    yield from list(NAMED.items())[:count]
    yield from (_random(number, seed) for number in range(len(NAMED), count))


def attack(wanted: list[tuple[str, Spoil]], place: Path) -> dict[str, Ending]:
    """How ``ask`` ends with each folder. One that ran code of its own ends as ``ran code``."""
    endings = {}
    settings = {"ECHOPIX_CACHE_DIR": str(place / "cache"), "PYTHONWARNINGS": "ignore"}
    worker = Worker(LIMIT, MEMORY, "plain", settings, code=3)
    try:
        for name, spoil in wanted:
            folder = place / "model"
            shutil.copytree(BASE, folder, copy_function=shutil.copyfile)
            spoil(folder)
            ending = worker.ask(["ask", str(DEMO), QUESTION, "--json", "-q", "--model", str(folder)])
            if Path(MARK).exists():
                Path(MARK).unlink()
                ending = Ending("ran code", ending.said, ending.seconds, ending.peak)
            if ending.outcome == "exit code 5" and ending.said.startswith("error:"):
                ending = Ending("refused", ending.said, ending.seconds, ending.peak)
            endings[name] = ending
            shutil.rmtree(folder)
    finally:
        worker.close()
    return endings


def _main() -> int:
    parser = argparse.ArgumentParser(description="Ask with hostile model folders and count how that ends.")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="folders whose name holds this")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        chosen = [pair for pair in folders(wanted.count, wanted.seed) if wanted.only in pair[0]]
        endings = attack(chosen, Path(place))
    for name, ending in endings.items():
        said = next(iter(ending.said.splitlines()), "")[:200]
        print(f"{ending.outcome:12} {ending.seconds:6.2f} s {ending.peak >> 20:5} MiB  {name}: {said}")
    bad = {name: ending for name, ending in endings.items() if ending.outcome not in GOOD}
    slow, fat = (max(endings.values(), key=key) for key in (lambda end: end.seconds, lambda end: end.peak))
    print(f"{len(endings)} folders, slowest {slow.seconds:.1f} s, largest {fat.peak >> 20} MiB")
    print(f"{len(bad)} failed: {', '.join(bad)}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(_main())
