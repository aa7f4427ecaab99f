"""Model folders made to exhaust, crash or lie: an answer or one clear error each, in bounded time and memory.

The whole corpus: ``python tests/fuzz/hostile_folders.py --count 300 --seed 1``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import harness
import hostile_folders

COUNT = int(os.environ.get("ECHOPIX_FUZZ", "0"))
SEEDS = [
    "as it is", "template long text", "template escape", "template endless", "tokenizer normalizer grows",
    "tokenizer splits", "tokenizer pads", "tokenizer_config model_max_length x", "config.json is deep",
    "tokenizer_config clean_up_tokenization_spaces True",
    "tokenizer.json of a gigabyte", "eos_token_id 10000000000", "preprocessor image_std [inf, inf, inf]",
    "num_hidden_layers 1000000000", "hidden_size 1000000000000000000", "n_window 100000000",
    "depth of a large model", "weights nan in score_head.2.bias", "weights inf in q_proj.weight",
    "integers in lm_head.weight", "header deep", "header of 10**18 bytes", "index deep",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is watched by way of /proc")
def test_whatever_a_model_folder_holds(tmp_path: Path) -> None:
    chosen = [(name, hostile_folders.NAMED[name]) for name in SEEDS]
    endings = hostile_folders.attack(list(hostile_folders.folders(COUNT, 1)) if COUNT else chosen, tmp_path)
    bad = {name: ending for name, ending in endings.items() if ending.outcome not in harness.GOOD}
    assert not bad
    if not COUNT:
        answered = {name for name, ending in endings.items() if ending.outcome == harness.ANSWERED}
        talking = {"tokenizer_config clean_up_tokenization_spaces True"}  # which transformers remarks on
        assert answered == {"as it is", "tokenizer_config model_max_length x"} | talking


def test_folders_follow_from_their_numbers(tmp_path: Path) -> None:
    made = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        for name, spoil in list(hostile_folders.folders(len(hostile_folders.NAMED) + 9, 1))[-9:]:
            folder = tmp_path / str(number) / name.replace(" ", "-")
            folder.mkdir()
            for file in hostile_folders.BASE.glob("*.json"):
                (folder / file.name).write_bytes(file.read_bytes())
            spoil(folder)
        made.append({path.relative_to(tmp_path / str(number)): path.read_bytes()
                     for path in (tmp_path / str(number)).rglob("*.json")})  # fmt: skip
    assert made[0] == made[1]
