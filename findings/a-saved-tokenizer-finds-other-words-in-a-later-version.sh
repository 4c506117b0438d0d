#!/usr/bin/env bash
# transformers 4.57.1 and 5.24.0: one saved CLIP tokenizer with an added word reads the same prompt as other numbers.
#
# tokenizer.add_tokens(["<Cat>"]), as training scripts do for a learned word, and save_pretrained, both by 4.57.1. That version finds
# the word as it is written and nowhere else: "<cat>" is spelled out in pieces. 5.24.0 reads the same folder, makes both the text and
# the word's name small first, as the file says of it ("normalized": true, which 4.57.1 wrote and CLIP's own tokenizer there never
# heeded), and finds the word in "<cat>", too. Nothing is said. A word that was added as a special token, or with
# normalized=False, is the same in both.
#
# Seen: "a <Cat> b <cat>" -> 10 numbers by 4.57.1, the word once; 6 by 5.24.0, the word twice.
#
# What a text-to-image model draws of such a prompt depends on the version that reads its tokenizer. A program that reads these files
# itself has to choose one of them; texts that were encoded before have to be encoded again after a change of version.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for version in 4.57.1 5.24.0; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/pip" install --quiet "transformers==$version"
done
cat > "$work/seen.py" <<'PYTHON'
import json
import string
import sys
from pathlib import Path

import transformers
from transformers import AddedToken, CLIPTokenizer

work = Path(sys.argv[1])
letters = string.ascii_lowercase + "<>"
words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
added = {
    "plain": lambda tokenizer: tokenizer.add_tokens(["<Cat>"]),
    "as it is": lambda tokenizer: tokenizer.add_tokens([AddedToken("<Cat>", normalized=False)]),
    "special": lambda tokenizer: tokenizer.add_special_tokens({"additional_special_tokens": ["<Cat>"]}),
}
if transformers.__version__.startswith("4."):
    (work / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (work / "merges.txt").write_text("#version: 0.2\n")
    for kind, add in added.items():
        tokenizer = CLIPTokenizer(str(work / "vocab.json"), str(work / "merges.txt"), model_max_length=77)
        add(tokenizer)
        tokenizer.save_pretrained(work / kind)
seen = {}
for kind in added:
    numbers = CLIPTokenizer.from_pretrained(work / kind)("a <Cat> b <cat>").input_ids
    seen[kind] = [len(numbers), numbers.count(len(words))]
print(transformers.__version__, seen)
plain = [10, 1] if transformers.__version__.startswith("4.") else [6, 2]
assert seen == {"plain": plain, "as it is": [10, 1], "special": [10, 1]}, "this has changed"
PYTHON
for version in 4.57.1 5.24.0; do
    "$work/$version/bin/python" "$work/seen.py" "$work" 2> "$work/log" || { cat "$work/log" >&2; exit 1; }
done
