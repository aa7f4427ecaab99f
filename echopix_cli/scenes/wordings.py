"""How questions are worded. The wide splits keep some wordings of every kind from training."""

from __future__ import annotations

import re
from itertools import product

from echopix_cli.scenes.worlds import WORLDS

Wordings = dict[str, tuple[str, ...]]

WORDINGS: Wordings = {
    "instrument": (
        "What instrument is playing?", "Which instrument is playing?", "What instrument do you hear?",
        "What is being played?", "What do you hear?",
    ),
    "object-side": ("What is {side}?", "What do you see {side}?", "Which thing is {side}?"),
    "object-only": ("What is on the screen?", "What do you see?", "What is shown?"),
    "count-notes": ("How many notes are played?", "How many notes do you hear?", "How many notes are there?"),
    "count-times": ("How many times does the {name} play?", "How many notes does the {name} play?"),
    "count-things": (
        "How many things are on the screen?", "How many things do you see?", "How many pictures are there?",
    ),
    "sync": (
        "Which one moves with the sound?", "What moves with the sound?",
        "Which thing moves when a note plays?",
    ),
    "order-first": ("Which instrument plays first?", "What do you hear first?", "Which instrument starts?"),
    "order-last": ("Which instrument plays last?", "What do you hear last?", "Which instrument comes last?"),
    "when": (
        "What is on the screen when the {name} plays?", "What do you see when the {name} plays?",
        "What is shown while the {name} plays?",
    ),
    "heard": (
        "What plays while the {name} is on the screen?",
        "What do you hear while the {name} is on the screen?",
        "Which instrument plays while the {name} is shown?",
    ),
    "exists-seen": ("Do you see {a} {name}?", "Is there {a} {name} on the screen?", "Is {a} {name} shown?"),
    # Of an instrument this wording would leave open whether it is seen or heard.
    "exists-object": ("Is there {a} {name}?",),
    "exists-heard": ("Do you hear {a} {name}?", "Does {a} {name} play?", "Is {a} {name} playing?"),
}  # fmt: skip

# Alternatives stand in brackets; what training says is every combination, (), drawn alike.
_TRAINED: Wordings = {
    "instrument": (
        "(What|Which) instrument (is playing|plays|sounds|is heard|can be heard|is played here)?",
        "What (|kind of |musical )instrument (do you hear|is this|is it|makes the sound)?",
        "Which instrument (is being played|makes this sound|can you hear)?",
        "Name the instrument (that plays|that sounds|that you hear|played here|of this clip).",
        "(Tell me|Say) (what|which) instrument (is playing|plays|you hear).",
    ),
    "object-side": (
        "What (is|can be seen|can you see|is there|stands|is visible|do you see) {side}?",
        "Which (thing|object|picture) (is|can be seen|appears|is shown|is visible) {side}?",
        "Name the (thing|object|picture) (|that is |shown |you see ){side}.",
        "(Tell me|Say) what is {side}.",
    ),
    "object-only": (
        "What (is|can be seen|can you see|is visible) on the screen?", "What (do|can) you see?",
        "What (is to be seen|is visible|can be seen|does the picture show|does the video show)?",
        "Name the (thing|object) (that is shown|that you see|that is visible|on the screen|in the picture).",
        "Which (thing|object) (is shown|is visible|do you see|is on the screen)?", "(Tell me|Say) what you see.",
    ),
    "count-notes": (
        "How many (notes|tones) (are played|do you hear|can you hear|sound|are heard|can be heard)?",
        "Count (|all |all of )the (notes|tones).", "Count the (notes|tones) that (are played|sound|are heard).",
        "(Give|Say|Tell me) the number of (notes|tones)(| played| heard| in the clip).",
        "How often (is a note played|does a note sound|do you hear a note)?",
        "How many notes (in all|in total|altogether|are there to hear|does the clip have|were played)?",
    ),
    "count-times": (
        "How (many times|often) does the {name} (play|sound|play a note)?",
        "How many (notes|tones) (does|did) the {name} play?", "How many notes (come from|are from) the {name}?",
        "How many times (do you hear the {name} play|can you hear the {name}|is the {name} heard)?",
        "How often (do you hear|can you hear) the {name}?", "Count the (notes|tones) (of|from) the {name}.",
        "Count how (many times|often) the {name} plays.",
        "(Give|Say|Tell me) the number of notes (of|from) the {name}.",
    ),
    "count-things": (
        "How many (things|objects) are (there|visible|on the screen|in the picture|in the video)?",
        "How many pictures are (there|visible|on the screen)?",
        "How many (things|objects|pictures) (do|can) you see?", "How many (things|objects) can be seen?",
        "Count (|all |all of )the (things|objects)(| on the screen| in the video).",
        "(Give|Say|Tell me) the number of (things|objects|pictures).",
    ),
    "sync": (
        "Which one (moves|hops|jumps) with the (sound|notes|music)?", "What (moves|hops|jumps) with the sound?",
        "Which (thing|object|picture) (moves|hops|jumps) when a note (plays|sounds|starts)?",
        "What (moves|hops|jumps) (whenever|each time|every time) (a note plays|a note sounds|you hear a note)?",
        "Name (what|the thing that|the object that) (moves|hops|jumps) with the (sound|notes).",
        "Which (thing|object) moves in time with the (sound|notes)?",
        "What (moves|hops) at the same time as the (sound|notes)?",
    ),
    "sync-name": (
        "Which one (moves|hops|jumps) when the {name} (plays|sounds)?", "What (moves|hops|jumps) with the {name}?",
        "Which (object|picture) (moves|hops|jumps) with the {name}?",
        "What (moves|hops|jumps) (whenever|each time|every time) the {name} (plays|sounds)?",
        "What (moves|hops) in time with the {name}?", "Name (what|the thing that) (moves|hops) with the {name}.",
    ),
    "order-first": (
        "Which instrument (plays first|starts|begins|sounds first|is first|comes first|is heard first)?",
        "(What|Which) instrument (plays|sounds|comes|is played|can be heard) before (all|the) others?",
        "What instrument (do|can) you hear first?", "What is the first instrument(| to play| that plays| you hear)?",
        "With which instrument does it (begin|start)?", "Name the (first instrument|instrument that plays first).",
        "(Tell me|Say) which instrument (plays first|starts|begins|comes first).",
    ),
    "order-last": (
        "Which instrument (plays last|ends|finishes|sounds last|is last|comes last|is heard last)?",
        "(What|Which) instrument (plays|sounds|comes|is played|can be heard) after (all|the) others?",
        "What instrument (do|can) you hear last?", "What is the last instrument(| to play| that plays| you hear)?",
        "With which instrument does it (end|finish)?", "Name the (last instrument|instrument that plays last).",
        "(Tell me|Say) which instrument (plays last|ends|finishes|comes last).",
    ),
    "when": (
        "What is (on the screen|to be seen|visible|in the picture) (when|while|as) the {name} (plays|sounds)?",
        "What (do|can) you see (when|while|as) the {name} (plays|sounds|is playing|is heard)?",
        "Which (thing|object|picture) is (shown|visible) (when|while) (the {name} plays|you hear the {name})?",
        "(While|When) the {name} (plays|sounds|is heard), what (is shown|do you see|is on the screen)?",
        "Name what is (shown|visible|on the screen) (when|while) the {name} plays.",
        "What is seen (together with|during the notes of|during) the {name}?",
        "What does the (picture|video) show (when|while) the {name} (plays|sounds)?",
    ),
    "heard": (
        "Which instrument (plays|sounds|is heard) (while|when) the {name} is (on the screen|visible|in the picture)?",
        "What instrument (do|can) you hear (while|when) (the {name} is on the screen|you see the {name})?",
        "What instrument (plays|sounds) while the {name} (is shown|is seen|can be seen)?",
        "(While|When) the {name} is (shown|visible|on the screen), (which|what) instrument (plays|do you hear|sounds)?",
        "Name the instrument that (plays|sounds|is heard) (while|when) the {name} is (shown|visible|on the screen).",
        "(What|Which) instrument (goes with|is heard together with|sounds beside) the {name}?",
        "What is heard (while|when) the {name} is (shown|visible|on the screen)?",
    ),
    "exists-seen": (
        "Do you see {a} {name}?", "Can you see {a} {name}(| on the screen| in the picture| in the video)?",
        "Is there {a} {name} (on the screen|in the picture|in the video|to be seen)?",
        "Is {a} {name} (shown|visible|to be seen|in the picture)?", "Does {a} {name} appear(| on the screen)?",
        "Does the (picture|video) show {a} {name}?", "Can {a} {name} be seen?",
    ),
    "exists-object": ("(Is there|Do you find|Do you notice) {a} {name}?",),
    "exists-heard": (
        "(Do|Can) you hear {a} {name}?", "Does {a} {name} (play|sound)?", "Is {a} {name} (playing|heard|sounding)?",
        "Is there {a} {name} (to be heard|playing|in the sound)?", "Can {a} {name} be heard?",
        "Is the sound of {a} {name} (there|to be heard)?",
    ),
    "list-heard": (
        "(Which|What) instruments (play|sound|are heard|do you hear|can you hear), in (order|turn)?",
        "(List|Name|Give|Tell me) (|all )the instruments in the order in which (they play|they sound|you hear them).",
        "(Which|What) instruments (do you hear|can you hear|are heard|sound), one after (another|the other)?",
        "(List|Name) (|all )the instruments, (first to last|one after another|from first to last|in turn).",
        "In (what|which) order do the instruments (play|sound)?",
        "(List|Name) the instruments (that |)you hear, in order.",
    ),
    "list-seen": (
        "(Which|What) (things|objects|pictures) (are shown|appear|are seen|do you see), in (order|turn)?",
        "(List|Name|Give|Tell me) (|all )the (things|objects) in the order in which (they are shown|you see them).",
        "(Which|What) (things|objects|pictures) (do you see|can you see|appear), one after (another|the other)?",
        "(List|Name) (|all )the (things|objects), (first to last|one after another|from first to last|in turn).",
        "In (what|which) order (are the things shown|do the things appear)?", "(List|Name) what you see, in order.",
    ),
    "corner-what": (
        "What (appears|can be seen|is shown|is visible|do you see) in the {corner} corner?",
        "Which (thing|object|picture) is (|shown |visible )in the {corner} corner?",
        "What is (|shown )at the {corner}?",
        "Name the (thing|object|picture) (|that is |shown )in the {corner} corner.",
        "(Tell me|Say) what is in the {corner} corner.",
    ),
    "corner-where": (
        "In (which|what) corner (is the {name}|does the {name} appear|can you see the {name}|can the {name} be seen)?",
        "Which corner (is the {name} in|has the {name}|shows the {name})?", "Where is the {name}?",
        "(Name|Tell me|Say) the corner (of|with|in which you see) the {name}.",
        "Where (do you see|can you see|is|appears) the {name}, in which corner?",
    ),
    "corner-when": (
        "At (which|what) second (does the {name} appear|do you see the {name} appear|does the {name} come|is the "
        "{name} seen first)?",
        "At which second is the {name} (first on the screen|first visible|first seen|there)?",
        "After how many seconds (does the {name} appear|do you see the {name}|is the {name} shown)?",
        "When does the {name} (appear|come|show up|come on the screen)?", "When (do you|can you) first see the {name}?",
        "(Name|Tell me|Say|Give) the second at which the {name} (appears|is first seen|comes).",
    ),
    "each-seen": (
        "What is (on the screen|visible|to be seen|there) (each|every) time the {name} (plays|sounds|is heard)?",
        "What do you see (each|every) time (the {name} plays|you hear the {name}|the {name} sounds)?",
        "What is (shown|visible|on the screen) (whenever|each time) (you hear the {name}|the {name} is heard)?",
        "Which (thing|object|picture) is (shown|visible|there) (every time|whenever) the {name} plays?",
        "(Whenever|Each time|Every time) the {name} plays, what (is shown|do you see|is on the screen)?",
        "Name what is (shown|visible) (each time|every time|whenever) the {name} (plays|sounds).",
        "What is always (shown|visible|on the screen) when the {name} plays?",
    ),
    "each-heard": (
        "Which instrument (plays|sounds) (each|every) time the {name} is (shown|visible|seen|there)?",
        "What instrument do you hear (each|every) time (the {name} is on the screen|you see the {name})?",
        "Which instrument (plays|sounds|is heard) (whenever|each time) (you see the {name}|the {name} appears)?",
        "(Whenever|Each time|Every time) the {name} is shown, (which|what) instrument (plays|do you hear)?",
        "Name the instrument that (plays|sounds) (each time|every time|whenever) the {name} is (shown|visible).",
        "(Which|What) instrument always (plays|sounds) when the {name} is (shown|visible)?",
    ),
}  # fmt: skip


def _combined(text: str) -> list[str]:
    """Every combination of a wording's alternatives, in order."""
    parts = [part.split("|") for part in re.split(r"[()]", text)]
    return ["".join(chosen) for chosen in product(*parts)]


def _spread(wordings: Wordings, held_out: Wordings) -> Wordings:
    """What alternatives come to, each once, without what is held out."""
    spared = {text for texts in held_out.values() for text in texts}
    return {
        kind: tuple(dict.fromkeys(own for text in texts for own in _combined(text) if own not in spared))
        for kind, texts in wordings.items()
    }


_HELD_OUT: Wordings = {
    "instrument": (
        "Which instrument do you hear?", "What instrument is being played?",
        "Name the instrument that is playing.",
    ),
    "object-side": ("Which thing do you see {side}?", "What is the thing {side}?", "What is shown {side}?"),
    "object-only": ("What is shown on the screen?", "What do you see on the screen?"),
    "count-notes": ("How many notes are there?", "Count the notes that you hear."),
    "count-times": (
        "How many times do you hear the {name}?", "How many notes of the {name} do you hear?",
    ),
    "count-things": ("How many things are shown?", "Count the things that you see."),
    "sync": ("Which thing moves with the sound?", "What moves when a note plays?"),
    "sync-name": ("Which thing moves with the {name}?", "What moves when the {name} plays?"),
    "order-first": ("Which instrument do you hear first?", "What instrument starts?"),
    "order-last": ("Which instrument do you hear last?", "What instrument comes last?"),
    "when": ("What is shown while the {name} plays?", "Which thing do you see when the {name} plays?"),
    "heard": (
        "Which instrument do you hear while the {name} is shown?",
        "What instrument plays while the {name} is on the screen?",
    ),
    "exists-seen": ("Is {a} {name} on the screen?", "Do you see {a} {name} on the screen?"),
    "exists-object": ("Do you see {a} {name} there?",),
    "exists-heard": ("Is {a} {name} played?", "Do you hear {a} {name} play?"),
    "list-heard": ("List the instruments in order.", "Which instruments play, one after another?"),
    "list-seen": ("List the things in order.", "Which things are shown, one after another?"),
    "corner-what": ("What is in the {corner} corner?", "Which thing appears in the {corner} corner?"),
    "corner-where": ("In which corner is the {name} shown?", "In which corner do you see the {name}?"),
    "corner-when": ("At which second is the {name} first shown?", "At which second do you first see the {name}?"),
    "each-seen": (
        "What is shown each time the {name} plays?", "Which thing do you see each time the {name} plays?",
    ),
    "each-heard": (
        "Which instrument do you hear each time the {name} is shown?",
        "What instrument plays each time the {name} is on the screen?",
    ),
}  # fmt: skip

WIDE: dict[str, Wordings] = {"train": _spread(_TRAINED, _HELD_OUT), "test": _HELD_OUT}

# What only movies are asked.
_MOVIE_TRAINED: Wordings = {
    "part-heard": (
        "In (which|what) fifth of the (movie|film|video) (does the {name} play|is the {name} heard|is the {name} "
        "played|can you hear the {name})?",
        "(Name|Say) the fifth of the (movie|film) in which (the {name} plays|you hear the {name}).",
    ),
    "part-seen": (
        "In (which|what) fifth of the (movie|film|video) (is the {name} shown|is the {name} seen|does the {name} "
        "appear|can you see the {name})?",
        "(Name|Say) the fifth of the (movie|film) in which (the {name} is shown|you see the {name}).",
    ),
    "earlier-heard": (
        "Which (plays|sounds|is heard|comes) first, the {name} or the {other}?",
        "(What|Which) is played (first|earlier), the {name} or the {other}?",
        "(Do|Can) you hear the {name} or the {other} first?",
    ),
    "earlier-seen": (
        "Which (is shown|appears|is seen|is visible) first, the {name} or the {other}?",
        "(What|Which) appears (first|earlier), the {name} or the {other}?",
        "(Do|Can) you see the {name} or the {other} first?",
    ),
}  # fmt: skip
_MOVIE_HELD_OUT: Wordings = {
    "part-heard": (
        "In which fifth of the movie do you hear the {name}?", "Which fifth of the movie does the {name} play in?",
    ),
    "part-seen": (
        "In which fifth of the movie do you see the {name}?", "Which fifth of the movie is the {name} shown in?",
    ),
    "earlier-heard": (
        "Which do you hear first, the {name} or the {other}?", "What plays first, the {name} or the {other}?",
    ),
    "earlier-seen": (
        "Which do you see first, the {name} or the {other}?", "What is shown first, the {name} or the {other}?",
    ),
}  # fmt: skip
MOVIE_WORDINGS: dict[str, Wordings] = {
    "train": _spread(_MOVIE_TRAINED, _MOVIE_HELD_OUT),
    "test": _MOVIE_HELD_OUT,
}


def words_of(split: str) -> Wordings:
    """How a split words questions about its scenes and movies: the narrow splits all as training does."""
    world = WORLDS.get(split)
    return (
        {**WORDINGS, **MOVIE_WORDINGS["train"]}
        if world is None
        else {**WIDE[world.words], **MOVIE_WORDINGS[world.words]}
    )
