"""How questions are worded. The wide splits keep some wordings of every kind from training."""

from __future__ import annotations

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

WIDE: dict[str, Wordings] = {
    "train": {
        "instrument": (
            "What instrument is playing?", "Which instrument is playing?", "What instrument do you hear?",
            "Which instrument is being played?", "Name the instrument that plays.",
        ),
        "object-side": (
            "What is {side}?", "What do you see {side}?", "Which thing is {side}?", "Name the thing {side}.",
        ),
        "object-only": ("What is on the screen?", "What do you see?", "Name the thing that is shown."),
        "count-notes": ("How many notes are played?", "How many notes do you hear?", "Count the notes."),
        "count-times": (
            "How many times does the {name} play?", "How many notes does the {name} play?",
            "Count the notes of the {name}.", "How many times do you hear the {name} play?",
        ),
        "count-things": (
            "How many things are on the screen?", "How many things do you see?", "Count the things on the screen.",
        ),
        "sync": (
            "Which one moves with the sound?", "What moves with the sound?", "Which thing moves when a note plays?",
        ),
        "sync-name": ("Which one moves when the {name} plays?", "What moves with the {name}?"),
        "order-first": (
            "Which instrument plays first?", "Which instrument starts?", "What instrument do you hear first?",
        ),
        "order-last": (
            "Which instrument plays last?", "Which instrument comes last?", "What instrument do you hear last?",
        ),
        "when": (
            "What is on the screen when the {name} plays?", "What do you see when the {name} plays?",
            "Which thing is shown while the {name} plays?",
        ),
        "heard": (
            "Which instrument plays while the {name} is on the screen?",
            "What instrument do you hear while the {name} is on the screen?",
            "What instrument plays while the {name} is shown?",
        ),
        "exists-seen": ("Do you see {a} {name}?", "Is there {a} {name} on the screen?", "Is {a} {name} shown?"),
        "exists-object": ("Is there {a} {name}?",),
        "exists-heard": ("Do you hear {a} {name}?", "Does {a} {name} play?", "Is {a} {name} playing?"),
        "list-heard": (
            "Which instruments play, in order?", "List the instruments in the order in which they play.",
            "Which instruments do you hear, one after another?",
        ),
        "list-seen": (
            "Which things are shown, in order?", "List the things in the order in which they are shown.",
            "Which things do you see, one after another?",
        ),
        "corner-what": (
            "What appears in the {corner} corner?", "Which thing is in the {corner} corner?",
            "Name the thing in the {corner} corner.",
        ),
        "corner-where": ("In which corner is the {name}?", "In which corner does the {name} appear?"),
        "corner-when": (
            "At which second does the {name} appear?", "At which second do you see the {name} appear?",
            "At which second is the {name} first on the screen?",
        ),
        "each-seen": (
            "What is on the screen each time the {name} plays?", "What do you see each time the {name} plays?",
            "What is shown each time you hear the {name}?",
        ),
        "each-heard": (
            "Which instrument plays each time the {name} is shown?",
            "What instrument do you hear each time the {name} is on the screen?",
            "Which instrument plays each time you see the {name}?",
        ),
    },
    "test": {
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
    },
}  # fmt: skip

# What only movies are asked.
MOVIE_WORDINGS: dict[str, Wordings] = {
    "train": {
        "part-heard": ("In which fifth of the movie does the {name} play?",),
        "part-seen": ("In which fifth of the movie is the {name} shown?",),
        "earlier-heard": ("Which plays first, the {name} or the {other}?",),
        "earlier-seen": ("Which is shown first, the {name} or the {other}?",),
    },
    "test": {
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
    },
}  # fmt: skip


def words_of(split: str) -> Wordings:
    """How a split words questions about its scenes and movies: the narrow splits all as training does."""
    world = WORLDS.get(split)
    return (
        {**WORDINGS, **MOVIE_WORDINGS["train"]}
        if world is None
        else {**WIDE[world.words], **MOVIE_WORDINGS[world.words]}
    )
