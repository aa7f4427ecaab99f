"""In which words ``outside.py`` asks."""

from __future__ import annotations

# Of each kind a wording of training's (that of wide-train), and one that no model was trained on.
WORDINGS = {
    "instrument": ("What instrument is playing?", "Name the instrument in this recording."),
    "side": ("What is {0}?", "Name the thing {0} of the picture."),
    "shown": ("What is on the screen?", "Name what this clip shows."),
    "notes": ("How many notes are played?", "Count the notes of this clip."),
    "own notes": ("How many times does the {0} play?", "Count the notes that the {0} plays."),
    "things": ("How many things are on the screen?", "Count the things in the picture."),
    "sync": ("Which one moves with the sound?", "Which of them jumps at every note?"),
    "first": ("Which instrument plays first?", "Name the instrument that opens the clip."),
    "last": ("Which instrument plays last?", "Name the instrument that closes the clip."),
    "when": ("What is on the screen when the {0} plays?", "Name what is visible during the {0}'s notes."),
    "heard": (
        "Which instrument plays while the {0} is on the screen?", "Name the instrument that accompanies the {0}.",
    ),
    "seen": ("Do you see {1} {0}?", "Does this clip show {1} {0}?"),
    "sounding": ("Do you hear {1} {0}?", "Can {1} {0} be heard in this clip?"),
    "list heard": ("Which instruments play, in order?", "Name all instruments from the earliest to the latest."),
    "list seen": ("Which things are shown, in order?", "Name all things from the earliest to the latest."),
    "corner what": ("What appears in the {0} corner?", "Name what turns up in the {0} corner."),
    "corner where": ("In which corner is the {0}?", "Name the corner that holds the {0}."),
    "corner when": ("At which second does the {0} appear?", "Name the second that brings the {0}."),
    "each seen": ("What is on the screen each time the {0} plays?", "Name what is visible at every note of the {0}."),
    "each heard": (
        "Which instrument plays each time the {0} is shown?", "Name the instrument that always accompanies the {0}.",
    ),
}  # fmt: skip
NARROW_WORDINGS = {"heard": "What plays while the {0} is on the screen?"}  # where the narrow training has another
# Written by somebody who was told what each kind asks for and had seen no wording of this project.
STRANGERS = {
    "instrument": (
        "What is the music being played on?",
        "Name the sole instrument that can be heard.",
        "The sound in this clip comes from which instrument?",
    ),
    "side": (
        "Which object is drawn {0} of the frame?",
        "Tell me what the picture {0} depicts.",
        "If I look {0} of the screen, what do I see?",
    ),
    "shown": (
        "What does the picture in this clip depict?",
        "Identify the one thing that appears on screen.",
        "What am I looking at in this video?",
    ),
    "notes": (
        "What is the total number of notes in this clip?",
        "Count every note that gets played from start to finish.",
        "Altogether, the music consists of how many notes?",
    ),
    "own notes": (
        "How many of the notes come from the {0}?",
        "Count only the notes played by the {0}.",
        "What number of times does the {0} sound a note?",
    ),
    "things": (
        "What is the number of pictures being displayed?",
        "Count the objects visible on the screen.",
        "How many different things can I see in the video?",
    ),
    "sync": (
        "Which picture jumps each time a note begins?",
        "Name the object whose hops line up exactly with the starts of the notes.",
        "Of the things moving on screen, which one bounces right on the beat of the notes?",
    ),
    "first": (
        "What instrument opens the music?",
        "Name the instrument that is heard before any other.",
        "The very first note is played on what?",
    ),
    "last": (
        "What instrument ends the music?",
        "Name the instrument that is heard after all the others.",
        "On what is the final note played?",
    ),
    "when": (
        "What can be seen at the time the {0} is heard?",
        "Name the picture being displayed during the sound of the {0}.",
        "As the {0} plays, what is the screen showing?",
    ),
    "heard": (
        "What instrument can be heard at the time the picture of the {0} is visible?",
        "Name the instrument that accompanies the picture of the {0}.",
        "With the {0} on screen, the music comes from which instrument?",
    ),
    "seen": (
        "Does {1} {0} appear on screen at any point?",
        "Tell me whether {1} {0} is among the things pictured.",
        "Could I spot {1} {0} by watching this video?",
    ),
    "sounding": (
        "Can the sound of {1} {0} be heard at any point?",
        "Tell me whether {1} {0} is among the instruments being played.",
        "Are any of the notes played on {1} {0}?",
    ),
    "list heard": (
        "What instruments can be heard, from the earliest to the latest?",
        "Name every instrument in the sequence in which they come in.",
        "Going from start to end, which instruments take their turn playing?",
    ),
    "list seen": (
        "What appears on screen, from the earliest picture to the latest?",
        "Name every picture in the sequence in which they come up.",
        "Going from start to end, which things are displayed one after another?",
    ),
    "corner what": (
        "What has been placed in the {0} corner?",
        "Name the object occupying the {0} corner of the screen.",
        "The {0} corner holds a picture of what?",
    ),
    "corner where": (
        "What corner of the screen holds the {0}?",
        "Tell me the corner that the picture of the {0} occupies.",
        "To find the {0}, which corner should I look at?",
    ),
    "corner when": (
        "How many seconds into the clip does the {0} come into view?",
        "Give the time in seconds at which the picture of the {0} shows up.",
        "Counting from the start, after how many seconds can I first see the {0}?",
    ),
    "each seen": (
        "What picture is always visible whenever the {0} sounds?",
        "Name the one thing that is on screen for every single note of the {0}.",
        "The {0} never plays without which picture being displayed?",
    ),
    "each heard": (
        "What instrument always sounds whenever the picture of the {0} is visible?",
        "Name the one instrument that can be heard every single time the {0} is on screen.",
        "The picture of the {0} is never displayed without which instrument playing?",
    ),
}
