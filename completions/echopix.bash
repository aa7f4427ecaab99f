# bash completion for echopix; written by completions/generate.py
_echopix() {
    local current="${COMP_WORDS[COMP_CWORD]}" previous="${COMP_WORDS[COMP_CWORD-1]}"
    local word command="" words="" commands=""
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        [[ "$word" == -* ]] && continue
        case "$command" in
            "") case "$word" in ask|bench|cache|chat|config|doctor|eval|help|models|profile|records|scene|serve|train) command="$word";; esac;;
            cache) case "$word" in clear|info) command="$command $word"; break;; esac;;
            models) case "$word" in info|list|path|prune|pull|rm|verify) command="$command $word"; break;; esac;;
            records) case "$word" in merge) command="$command $word"; break;; esac;;
            *) break;;
        esac
    done
    case "$command:$previous" in
        ":--show-completion") COMPREPLY=($(compgen -W "bash zsh fish" -- "$current")); compopt -o default; return;;
        "ask:--engine") COMPREPLY=($(compgen -W "local ray" -- "$current")); compopt -o default; return;;
        "ask:--address") COMPREPLY=($(compgen -W "auto" -- "$current")); compopt -o default; return;;
        "ask:--format") COMPREPLY=($(compgen -W "text jsonl tsv csv" -- "$current")); compopt -o default; return;;
        "ask:--sieve"|"chat:--sieve"|"eval:--sieve"|"profile:--sieve") COMPREPLY=($(compgen -W "auto cs2 question-attention per-modality uniform random none" -- "$current")); compopt -o default; return;;
        "ask:--model"|"ask:-m"|"chat:--model"|"chat:-m"|"eval:--model"|"eval:-m"|"profile:--model"|"profile:-m"|"serve:--model"|"serve:-m") COMPREPLY=($(compgen -W "auto tiny qwen2.5-omni-3b qwen2.5-omni-7b" -- "$current")); compopt -o default; return;;
        "ask:--device"|"bench:--device"|"chat:--device"|"eval:--device"|"models pull:--device"|"profile:--device"|"serve:--device"|"train:--device") COMPREPLY=($(compgen -W "auto cpu cuda" -- "$current")); compopt -o default; return;;
        "ask:--dtype"|"bench:--dtype"|"chat:--dtype"|"eval:--dtype"|"models pull:--dtype"|"profile:--dtype"|"serve:--dtype"|"train:--dtype") COMPREPLY=($(compgen -W "auto float32 bfloat16 float16" -- "$current")); compopt -o default; return;;
        "ask:--quantize"|"bench:--quantize"|"chat:--quantize"|"eval:--quantize"|"models pull:--quantize"|"profile:--quantize"|"serve:--quantize") COMPREPLY=($(compgen -W "auto none int8 nf4" -- "$current")); compopt -o default; return;;
        "bench:--shape"|"bench:-s") COMPREPLY=($(compgen -W "tiny small qwen2.5-omni-3b qwen2.5-omni-7b" -- "$current")); compopt -o default; return;;
        "eval:--answers") COMPREPLY=($(compgen -W "letters text" -- "$current")); compopt -o default; return;;
        "eval:--family"|"scene:--family") COMPREPLY=($(compgen -W "instrument object count sync order when heard exists list corner each silent dark" -- "$current")); compopt -o default; return;;
        "scene:--split") COMPREPLY=($(compgen -W "train val test unseen-font wide-train wide-val wide-test wide-font wide-style wide-composer" -- "$current")); compopt -o default; return;;
        "train:--base") COMPREPLY=($(compgen -W "tiny qwen2.5-omni-3b qwen2.5-omni-7b" -- "$current")); compopt -o default; return;;
        "train:--stage") COMPREPLY=($(compgen -W "towers full sieve" -- "$current")); compopt -o default; return;;
        "train:--data") COMPREPLY=($(compgen -W "scenes wide" -- "$current")); compopt -o default; return;;
    esac
    case "$command" in
        "") words="--version --install-completion --show-completion --help -h";;
        "ask") words="--choices --vtt --report --question -Q --questions --input --glob --null -0 --output -o --resume --overwrite --shard --fail-fast --engine --address --workers --gpus-per-worker --json --format --timeout --budget -b --sieve --prefilter --no-prefilter --question-layer --model -m --device --dtype --quantize --keep-source --drop-source --server --no-server --system --max-new-tokens --temperature --fps --max-frames --max-pixels --window --look --start --end --no-audio --audio --no-video --video --audio-track --video-track --cache --no-cache --quiet -q --verbose -v --debug --no-color --color --help -h";;
        "bench") words="--shape -s --budget -b --seconds --trials --warmup --new-tokens --json --device --dtype --quantize --fps --max-frames --max-pixels --quiet -q --verbose -v --debug --no-color --color --help -h";;
        "cache") words="--help -h"; commands="clear info";;
        "cache clear") words="--json --quiet -q --debug --no-color --color --help -h";;
        "cache info") words="--json --quiet -q --debug --no-color --color --help -h";;
        "chat") words="--budget -b --sieve --prefilter --no-prefilter --question-layer --model -m --device --dtype --quantize --keep-source --drop-source --server --no-server --system --max-new-tokens --temperature --fps --max-frames --max-pixels --window --look --start --end --no-audio --audio --no-video --video --audio-track --video-track --cache --no-cache --quiet -q --verbose -v --debug --no-color --color --help -h";;
        "config") words="--json --no-color --color --debug --help -h";;
        "doctor") words="--online --json --debug --no-color --color --help -h";;
        "eval") words="--data --format --media-root --answers --count -n --length --budget -b --sieve --around-sieve --family --seed --output -o --items --shard --full --compare --plot --force --json --markdown --prefilter --no-prefilter --question-layer --model -m --device --dtype --quantize --keep-source --drop-source --system --max-new-tokens --fps --max-frames --max-pixels --window --look --no-audio --audio --no-video --video --quiet -q --debug --no-color --color --help -h";;
        "help") words="--help -h"; commands="ask bench cache chat config doctor eval help models profile records scene serve train architecture batches benchmarks conversations evaluation experiments fleet media moments numbers performance python serving settings training trust weights";;
        "models") words="--help -h"; commands="info list path prune pull rm verify";;
        "models info") words="--json --quiet -q --debug --no-color --color --help -h"; commands="tiny qwen2.5-omni-3b qwen2.5-omni-7b";;
        "models list") words="--json --quiet -q --debug --no-color --color --help -h";;
        "models path") words="--debug --no-color --color --help -h"; commands="tiny qwen2.5-omni-3b qwen2.5-omni-7b";;
        "models prune") words="--yes -y --dry-run --json --quiet -q --debug --no-color --color --help -h";;
        "models pull") words="--dry-run --json --quantize --keep-source --drop-source --device --dtype --quiet -q --debug --no-color --color --help -h"; commands="tiny qwen2.5-omni-3b qwen2.5-omni-7b";;
        "models rm") words="--yes -y --dry-run --json --quiet -q --debug --no-color --color --help -h"; commands="tiny qwen2.5-omni-3b qwen2.5-omni-7b";;
        "models verify") words="--json --quiet -q --debug --no-color --color --help -h"; commands="tiny qwen2.5-omni-3b qwen2.5-omni-7b";;
        "profile") words="--budget -b --question -Q --repeat --warmup --json --sieve --prefilter --no-prefilter --question-layer --model -m --device --dtype --quantize --keep-source --drop-source --system --max-new-tokens --fps --max-frames --max-pixels --window --look --start --end --no-audio --audio --no-video --video --audio-track --video-track --quiet -q --verbose -v --debug --no-color --color --help -h";;
        "records") words="--help -h"; commands="merge";;
        "records merge") words="--output -o --json --quiet -q --debug --no-color --color --help -h";;
        "scene") words="--seed --family --split --count --movie --size --fps --data --force --json --quiet -q --debug --no-color --color --help -h";;
        "serve") words="--idle --status --stop --http --root --token-file --queue --json --model -m --device --dtype --quantize --keep-source --drop-source --budget -b --fps --max-frames --max-pixels --window --max-new-tokens --cache --no-cache --quiet -q --verbose -v --debug --no-color --color --help -h";;
        "train") words="--out --recipe --set --base --stage --data --steps --seed --seconds --threads --workers --plot --export --without-sieve --force --json --device --dtype --quiet -q --debug --no-color --color --help -h";;
    esac
    if [[ "$current" == -* ]]; then COMPREPLY=($(compgen -W "$words" -- "$current")); return; fi
    if [[ -z "$command" ]]; then commands="ask bench cache chat config doctor eval help models profile records scene serve train"; fi
    compopt -o default
    COMPREPLY=($(compgen -W "$commands" -- "$current"))
}
complete -F _echopix echopix
