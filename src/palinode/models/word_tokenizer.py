"""A byte-pair vocabulary in which every word of a small language is one token."""

import itertools

START = "<|startoftext|>"
END = "<|endoftext|>"


def word_vocabulary(words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte-pair encoding learnt until every word is one token: (token -> id, merges in order).

    Ties between pairs go to the first in the alphabet (a library breaks them at random, so that two runs would differ).
    """
    splits = {word: [*word[:-1], f"{word[-1]}</w>"] for word in sorted(set(words))}
    letters = sorted(set("".join(words)))
    tokens = [START, END, *letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    while True:
        counts: dict[tuple[str, str], int] = {}
        for split in splits.values():
            for pair in itertools.pairwise(split):
                counts[pair] = counts.get(pair, 0) + 1
        if not counts:
            return {token: i for i, token in enumerate(dict.fromkeys(tokens))}, merges
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        tokens.append("".join(best))
        splits = {word: _merge(split, best) for word, split in splits.items()}


def _merge(split: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for token in split:
        if out and (out[-1], token) == pair:
            out[-1] += token
        else:
            out.append(token)
    return out
