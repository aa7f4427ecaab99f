"""What to type, command by command; a test runs all of it.

Files that are called ``clip.mp4``, ``song.flac``, ``film.mkv`` or ``clips`` stand for the reader's own.
"""

EXAMPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "": (
        ("echopix ask demo", "a bundled clip and the bundled model: nothing else is needed"),
        ('echopix ask clip.mp4 "What instrument is playing?"', "a file of yours"),
        ("echopix doctor", "is everything here that answering needs?"),
    ),
    "ask": (
        ('echopix ask clip.mp4 "What instrument is playing?"', "one file, one answer"),
        ('echopix ask clip.mp4 -Q "What instrument is playing?" -Q "What is on the left?"', "one decode, two answers"),
        ('echopix ask clips "What instrument is playing?" -o answers.jsonl', "a folder; run it again to go on"),
    ),
    "chat": (
        ("echopix chat clip.mp4", "ask, line by line; /help lists commands"),
        ("echopix chat clip.mp4 --budget 5% --start 2", "as ask takes it, for all questions"),
        ("printf 'What instrument is playing?\\n' | echopix chat clip.mp4", "a script of questions, a record a line"),
    ),
    "serve": (
        ("echopix serve", "load the model once; every echopix ask from now on only asks"),
        (
            "echopix serve --idle 30m --http 127.0.0.1:8080 --root clips",
            "over HTTP, too; half an hour without a question",
        ),
        ("echopix serve --stop", "end what runs, once it has answered"),
    ),
    "profile": (
        ('echopix profile clip.mp4 -Q "What instrument is playing?"', "budgets 0.05, 0.1 and 0.2 beside 1.0"),
        ('echopix profile clip.mp4 -Q "What instrument is playing?" -b 10% -b 50%', "other budgets"),
        ('echopix profile clip.mp4 -Q "What instrument is playing?" --repeat 3 --json', "one JSON object"),
    ),
    "bench": (
        ("echopix bench", "the shape small on this machine: minutes on two processor cores"),
        ("echopix bench --shape tiny --trials 2 --json", "one JSON object"),
        ("echopix bench clip.mp4 --shape tiny", "decoding included"),
    ),
    "eval": (
        ("echopix eval --count 20 -b 1.0 -b 0.1", "scenes of the test split, two budgets"),
        ("echopix eval --data questions.jsonl -o report.json", "your own questions; run it again to go on"),
        ("echopix eval --compare a.json b.json", "two reports about the same questions"),
    ),
    "scene": (
        ("echopix scene out.mp4", "one clip; its questions and answers on stdout"),
        ("echopix scene --count 5 --data scenes/questions.jsonl scenes", "five, with a file that eval reads"),
        ("echopix scene --movie 10:00 --seed 7 out.mp4", "ten minutes, with questions about single moments"),
    ),
    "train": (
        ("echopix train --out runs/full --stage full", "the bundled shape, from nothing, on scenes"),
        ("echopix train --out runs/sieve --base runs/full --seconds 600", "then its sieve, in pieces of ten minutes"),
        ("echopix train --out runs/sieve", "goes on where it was stopped"),
    ),
    "models": (
        ("echopix models list", "what there is, and what is on this machine"),
        ("echopix models pull qwen2.5-omni-3b", "fetch one"),
        ("echopix models info tiny", "licence, sizes, memory"),
    ),
    "models list": (
        ("echopix models list", "a line a model"),
        ("echopix models list --json", "one JSON object"),
        ("echopix models list --json | python3 -m json.tool", "for reading"),
    ),
    "models info": (
        ("echopix models info tiny", "the bundled one"),
        ("echopix models info qwen2.5-omni-7b", "what it would take"),
        ("echopix models info tiny --json", "one JSON object"),
    ),
    "models path": (
        ("echopix models path tiny", "its folder"),
        ('ls "$(echopix models path tiny)"', "its files"),
        ('du -sh "$(echopix models path tiny)"', "their size"),
    ),
    "models pull": (
        ("echopix models pull qwen2.5-omni-3b", "what answering needs"),
        ("echopix models pull qwen2.5-omni-7b --quantize nf4 --drop-source", "keep only a copy in four bits"),
        ("echopix models pull hf:OWNER/REPO --dry-run", "only say what would be fetched"),
    ),
    "models verify": (
        ("echopix models verify tiny", "headers and lengths"),
        ("echopix models verify qwen2.5-omni-3b", "every byte, against the hub's checksums"),
        ("echopix models verify tiny --json", "one JSON object"),
    ),
    "models rm": (
        ("echopix models rm qwen2.5-omni-3b", "asks first"),
        ("echopix models rm qwen2.5-omni-3b --yes", "for scripts"),
        ("echopix models rm qwen2.5-omni-3b --dry-run", "only say what would go"),
    ),
    "models prune": (
        ("echopix models prune", "asks first"),
        ("echopix models prune --yes", "for scripts"),
        ("echopix models prune --dry-run", "only say what would go"),
    ),
    "cache": (
        ("echopix cache info", "how many features are kept, and how many bytes"),
        ("echopix cache clear", "remove them"),
        ("echopix ask demo --no-cache", "neither keep nor find any"),
    ),
    "cache info": (
        ("echopix cache info", "how many, and how many bytes"),
        ("echopix cache info --json", "one JSON object"),
        ("ECHOPIX_CACHE_SIZE=8G echopix cache info", "with another bound"),
    ),
    "cache clear": (
        ("echopix cache clear", "remove all"),
        ("echopix cache clear --json", "and say what, as JSON"),
        ("ECHOPIX_CACHE_DIR=elsewhere echopix cache clear", "of another folder"),
    ),
    "records": (
        ("echopix records merge part-1.jsonl part-2.jsonl -o answers.jsonl", "two shards, one file"),
        ("echopix records merge part-*.jsonl -o answers.jsonl", "all of them"),
        ("echopix records merge part-*.jsonl -o answers.jsonl --json", "and say how many, as JSON"),
    ),
    "records merge": (
        ("echopix records merge part-1.jsonl part-2.jsonl -o answers.jsonl", "two shards, one file"),
        ("echopix records merge part-*.jsonl -o answers.jsonl", "all of them"),
        ("echopix records merge part-*.jsonl -o answers.jsonl --json", "and say how many, as JSON"),
    ),
    "doctor": (
        ("echopix doctor", "try everything"),
        ("echopix doctor --json", "for a report"),
        ("echopix doctor --online", "ask the model hub too"),
    ),
    "config": (
        ("echopix config", "every setting and where it comes from"),
        ("ECHOPIX_BUDGET=20% echopix config", "what a variable does"),
        ("echopix config --json", "one JSON object"),
    ),
    "help": (
        ("echopix help ask", "as echopix ask --help"),
        ("echopix help media", "a page of the manual"),
        ("echopix help", "all commands and pages"),
    ),
}
