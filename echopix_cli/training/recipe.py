"""What a training run does, as plain data that is read from a ``recipe.toml`` and written beside its checkpoints."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from echopix_cli.declarations import read_toml, require_known, setting, table_of
from echopix_cli.errors import UsageError
from echopix_cli.media.plan import DecodePlan
from echopix_cli.parsers import bounded, one_of, parse_budget, parse_switch
from echopix_cli.settings import TABLE

if TYPE_CHECKING:
    from echopix_cli.model.processing import Processor
    from echopix_cli.model.values import Selection

SCENES = "scenes"
WIDE = "wide"
# Rendered on the fly, and the splits that are trained and validated on.
RENDERED = {SCENES: ("train", "val"), WIDE: ("wide-train", "wide-val")}
STAGES = ("towers", "full", "sieve")
VIEWS = ("whole", "causal", "no-question")
OUTPUTS = ("all", "media")
TEACHERS = ("none", "attention")
QUANTIZATIONS = ("none", "nf4")
OPTIMIZERS = ("adamw", "muon")
PRECISIONS = ("float32", "bfloat16")
CONTROLS: tuple[Selection, ...] = ("random", "uniform")  # what any sieve has to beat
WHAT, DATA, HOW, LOSS = "What to train", "What to train on", "How to train", "What is learned from"
FILE = "recipe.toml"
STATE = "training_state.safetensors"  # what going on needs, beside it
_EARLIER_FILE = "recipe.json"  # in folders of runs that were started before recipes were TOML


def _families(split: str = "wide-train") -> tuple[str, ...]:
    from echopix_cli.scenes import families_of

    return families_of(split)


def _number(default: float, help: str, panel: str) -> Any:
    return setting(default, bounded(float, 0.0, "expected a number of at least 0"), help, panel=panel)


def _share(default: float, help: str, panel: str) -> Any:
    return setting(default, bounded(float, 0.0, "expected a number from 0 to 1", 1.0), help, panel=panel)


def _count(default: int, help: str, panel: str, low: int = 1) -> Any:
    what = f"expected a whole number of at least {low}"
    return setting(default, bounded(int, low, what), help, metavar="N", panel=panel)


def _decoded(name: str) -> Any:
    own = TABLE[name]
    return setting(None, own.parse, f"{own.help} (default: the program's setting, or the checkpoint's)", panel=DATA)


@dataclass(frozen=True)
class Recipe:
    """One stage of training.

    Raises:
        UsageError: the smallest budget is above the largest, the scenes have no family that is named, or the towers
            alone have nothing to learn from.
    """

    base: str = setting(
        "",
        str,
        "checkpoint to start from; without it, the bundled model's shape, from nothing. A "
        "stock base gets a CS2 copied from its first decoder layers",
        metavar="NAME|DIR",
        panel=WHAT,
    )
    stage: str = setting(
        "sieve",
        STAGES,
        "towers: these alone, on their auxiliary losses; full: on all tokens, around the sieve; sieve: CS2, score head "
        "and decoder, at a budget drawn for each batch",
        panel=WHAT,
    )
    freeze_towers: bool = setting(
        False, parse_switch, "leave the towers as they are; true on a stock base, unless it is given", panel=WHAT
    )
    adapters: int = _count(
        0, "rank of LoRA adapters that are trained in place of the decoder; 0 trains it whole", WHAT, 0
    )
    quantize: str = setting("none", QUANTIZATIONS, "four-bit decoder under the adapters", panel=WHAT)
    sieve_layers: int = _count(4, "CS2 layers given to a stock base", WHAT)
    sieve_view: str | None = setting(None, VIEWS, "ablation: what CS2 sees (default: as the base has it)", panel=WHAT)
    sieve_output: str | None = setting(
        None,
        OUTPUTS,
        "media: text rows keep their raw embeddings past CS2, so that what is answered must come from kept rows "
        "(default: as the base has it)",
        panel=WHAT,
    )
    rope_axes: int | None = setting(
        None,
        bounded(int, 3, "expected 3 or 4", 4),
        "ablation: 3 is the family's M-RoPE, 4 Sync-RoPE (default: as the base has it)",
        panel=WHAT,
    )
    data: str = setting(
        SCENES,
        str,
        "scenes or wide (the wider scenes), rendered on the fly, or a JSONL file of messages and videos",
        metavar="scenes|wide|FILE",
        panel=DATA,
    )
    families: tuple[str, ...] = setting(
        (),
        lambda text: one_of(_families())(text),
        "families of questions that scenes are made for; a repeated name is drawn more often (default: all)",
        panel=DATA,
        repeats=True,
    )
    questions: int = _count(2, "questions per scene in the sieve stage; the full stage asks all", DATA)
    films: float = _share(
        0.0,
        "share of the questions that hang on one or two names, put to several scenes of a batch as to a film of which "
        "one scene holds each; the model is then told a film's own time, too (sieve stage, scenes)",
        DATA,
    )
    letters: float = _share(
        0.0, "share of the questions that are put with options behind letters, as --choices does (scenes)", DATA
    )
    galleries: float = _share(
        0.0,
        "share of clips that are silent and full of pictures in place of scenes (towers stage, wide scenes)",
        DATA,
    )
    hide_bands: float = _share(
        0.0,
        "share of sounds with frequencies moved and hidden, so that an instrument is known by more than one recording",
        DATA,
    )
    fps: float | None = _decoded("fps")
    max_frames: int | None = _decoded("max_frames")
    max_pixels: int | None = _decoded("max_pixels")
    steps: int = _count(6000, "optimizer steps; may be raised when a run goes on", HOW)
    batch_size: int = _count(8, "clips in a batch", HOW)
    accumulate: int = _count(1, "batches in a step", HOW)
    optimizer: str = setting(
        "adamw",
        OPTIMIZERS,
        "muon orthogonalises the updates of the layers' matrices (Jordan et al. 2024) and leaves the rest to AdamW",
        panel=HOW,
    )
    learning_rate: float = _number(
        8e-4, "at its highest; on a stock base 0.0001 with adapters and 0.00001 without, unless it is given", HOW
    )
    warmup: int = _count(
        200, "steps until the learning rate is at its highest; on a stock base 50, unless it is given", HOW, 0
    )
    decay: float = _share(0.25, "share of the steps, at the end, over which it falls to zero", HOW)
    weight_decay: float = _number(0.05, "weight decay of matrices", HOW)
    seed: int = _count(1, "of everything random", HOW, 0)
    budget_low: float = setting(0.05, parse_budget, "smallest budget drawn; draws are log-uniform", panel=HOW)
    budget_high: float = setting(1.0, parse_budget, "largest budget drawn", panel=HOW)
    precision: str = setting("float32", PRECISIONS, "of the arithmetic; trained weights stay float32", panel=HOW)
    checkpointing: bool = setting(False, parse_switch, "recompute activations, for less memory", panel=HOW)
    checkpoint_every: int = _count(250, "steps between checkpoints", HOW)
    validate_every: int = _count(500, "steps between validations (scenes)", HOW)
    validate_batches: int = _count(16, "batches of a validation; 0 for none", HOW, 0)
    hearing: float = _number(
        4.0, "weight: which instruments sound at each audio row; from nothing, needed to learn anything (scenes)", LOSS
    )
    seeing: float = _number(1.0, "weight: which picture lies on each video row; needed in the same way (scenes)", LOSS)
    binding: float = _number(
        1.0,
        "weight: what is seen, has moved and has sounded meanwhile, at every audio row of the decoder's first half, "
        "and what hops and sounds at every video row; without it, questions that join both stay at chance (scenes)",
        LOSS,
    )
    pointing: float = _number(
        0.3,
        "weight: a question's attention, in the layer after that half, to the rows its answer rests on (scenes)",
        LOSS,
    )
    evidence: float = _number(
        0.3,
        "weight: scores onto the rows that an answer rests on; the gradient alone leaves the choice to chance (scenes)",
        LOSS,
    )
    teacher: str = setting(
        "none",
        TEACHERS,
        "attention: scores onto what the base's own decoder attends to; needs no labels",
        panel=LOSS,
    )
    teaching: float = _number(0.3, "weight of the teacher", LOSS)

    def __post_init__(self) -> None:
        if self.budget_low > self.budget_high:
            raise UsageError(
                f"budget_low {self.budget_low:g} is above budget_high {self.budget_high:g}",
                "give budget_low, the smallest budget drawn, a value of at most budget_high",
            )
        if self.stage == "towers" and (self.splits is None or not (self.hearing or self.seeing)):
            raise UsageError(
                "stage towers learns from rendered scenes, by hearing or seeing: "
                + (f"{self.data} has none" if self.splits is None else "both weigh 0"),
                "take data = scenes or wide, and leave hearing or seeing above 0",
            )
        if self.splits is not None and (unknown := set(self.families) - set(_families(self.splits[0]))):
            raise UsageError(f"{self.data} have no question family {min(unknown)!r}", "add --set data=wide")

    @property
    def splits(self) -> tuple[str, str] | None:
        """The splits of scenes that are trained and validated on; None for data from a file."""
        return RENDERED.get(self.data)

    @property
    def asked(self) -> tuple[str, ...]:
        """The families that scenes are made for, all unless some are named."""
        return self.families or (_families(self.splits[0]) if self.splits else ())

    def rate(self, step: int) -> float:
        """Learning rate at a step: linear warm-up, constant, and linear to zero over the last ``decay`` of the run.

        A run can be made longer while it is still in its constant part.
        """
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup), left)

    def budget(self, draw: float) -> float:
        """A budget from a uniform draw in [0, 1)."""
        low, high = math.log(self.budget_low), math.log(self.budget_high)
        return min(1.0, math.exp(low + draw * (high - low)))

    def settings(self) -> dict[str, tuple[float | None, Selection]]:
        """What validation measures: budgets of the sieve, with the controls beside it."""
        if self.stage == "towers":
            return {}
        if self.stage == "full":
            return {"full": (None, "cs2")}
        return {
            **{f"cs2@{budget}": (budget, "cs2") for budget in (1.0, 0.2, 0.1, 0.05)},
            **{f"{control}@{budget}": (budget, control) for control in CONTROLS for budget in (0.1, 0.05)},
        }

    def plan(self, processor: Processor) -> DecodePlan:
        """How files are decoded."""
        default = DecodePlan()
        wanted = replace(default, fps=self.fps or default.fps, max_frames=self.max_frames or default.max_frames)
        return processor.plan(wanted, self.max_pixels)

    def text(self) -> str:
        """All of it as TOML, each key below what it means."""
        lines = ["# One stage of training; echopix train --recipe FILE --out DIR repeats it."]
        for name, own in RECIPE.items():
            value = getattr(self, name)
            lines += ["", f"# {own.help}", f"# {name} =" if value is None else f"{name} = {toml(value)}"]
        return "\n".join(lines) + "\n"

    def save(self, folder: Path) -> None:
        """Write ``recipe.toml``.

        Raises:
            UsageError: a path in it is no text.
        """
        from echopix_cli.files import write_whole

        try:
            content = self.text().encode()
        except UnicodeEncodeError:
            raise UsageError(f"a path in the recipe of {folder} is not valid UTF-8", "rename the folder") from None
        write_whole(folder / FILE, content)

    @classmethod
    def load(cls, folder: Path) -> Recipe | None:
        """The recipe of the run in a folder, None where no run was started.

        Raises:
            UsageError: it is damaged, or of a version of the tool with other keys.
        """
        for path in (folder / FILE, folder / _EARLIER_FILE):
            if path.is_file():
                return cls(**read_values(path))
        return None

    def resumed_with(self, wanted: dict[str, Any]) -> Recipe:
        """This recipe with another length; whatever else is asked for must be what the run was started with.

        Raises:
            UsageError: a field that cannot change in mid-run.
        """
        own = asdict(self)
        for name, value in wanted.items():
            if name != "steps" and value != own[name]:
                raise UsageError(
                    f"this run was started with {name.replace('_', ' ')} {own[name]!r}, not {value!r}",
                    "leave the option out to go on, or train into another folder with --out",
                )
        return Recipe(**{**own, "steps": wanted.get("steps", self.steps)})


RECIPE = table_of(Recipe)


def read_values(path: Path) -> dict[str, Any]:
    """What a ``recipe.toml`` says. Relative paths in it start from its folder.

    Raises:
        UsageError: it cannot be read, or a key or value does not fit.
    """
    if path.suffix == ".json":
        try:
            raw = {name: value for name, value in json.loads(path.read_bytes()).items() if value is not None}
        except (OSError, ValueError, AttributeError) as error:
            raise UsageError(f"cannot read {path}: {error}", "train into another folder with --out") from None
    else:
        raw = read_toml(path)
    require_known(raw, RECIPE, str(path), "recipe key")
    values = {name: RECIPE[name].read(value, f"{path}, {name}") for name, value in raw.items()}
    if values.get("data", SCENES) not in RENDERED:
        values["data"] = str(path.parent / os.path.expanduser(values["data"]))
    if base := values.get("base"):
        from echopix_cli.weights.registry import known_models

        beside = path.parent / os.path.expanduser(base)
        values["base"] = str(beside) if base not in known_models() and beside.is_dir() else base
    return values


def read_assignments(lines: Iterable[str]) -> dict[str, Any]:
    """What ``NAME=VALUE`` of ``--set`` say.

    Raises:
        UsageError: a name or value does not fit.
    """
    parts = [line.partition("=") for line in lines]
    if wrong := [name for name, equals, _ in parts if not equals]:
        raise UsageError(f"--set {wrong[0]} gives no value", f"--set {wrong[0]}=VALUE")
    require_known({name.strip(): None for name, _, _ in parts}, RECIPE, "--set", "recipe key")
    return {name.strip(): RECIPE[name.strip()].read(value.strip(), f"--set {name.strip()}") for name, _, value in parts}


def toml(value: Any) -> str:
    """A text, number, switch or tuple of these as a value of TOML."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml, value))}]"
    # Escapes of JSON are escapes of TOML too, which takes no bare DEL.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
