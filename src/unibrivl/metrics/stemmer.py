"""Porter's stemmer with NLTK's amendments: which forms of an English word METEOR counts as the same word.

The algorithm is M. F. Porter's ("An algorithm for suffix stripping", 1980) and the amendments are those that NLTK
makes by default, so that a score made with these stems equals one made with NLTK's. Porter's term: the measure of a
stem is how often a run of vowels is followed by a run of consonants in it.
"""

from __future__ import annotations

from functools import lru_cache

VOWELS = frozenset("aeiou")

# NLTK: whole words that the rules would spoil, stem -> its words
IRREGULAR = {
    word: stem
    for stem, words in {
        "sky": "sky skies",
        "die": "dying",
        "lie": "lying",
        "tie": "tying",
        "news": "news",
        "inning": "innings inning",
        "outing": "outings outing",
        "canning": "cannings canning",
        "howe": "howe",
        "proceed": "proceed",
        "exceed": "exceed",
        "succeed": "succeed",
    }.items()
    for word in words.split()
}

# ending -> what takes its place if the stem before it has a measure above 0
STEP_2 = {
    **{"ational": "ate", "tional": "tion", "enci": "ence", "anci": "ance", "izer": "ize", "bli": "ble", "alli": "al"},
    **{"entli": "ent", "eli": "e", "ousli": "ous", "ization": "ize", "ation": "ate", "ator": "ate", "alism": "al"},
    **{"iveness": "ive", "fulness": "ful", "ousness": "ous", "aliti": "al", "iviti": "ive", "biliti": "ble"},
    **{"fulli": "ful"},  # NLTK
}
STEP_3 = {
    **{"ative": ""},  # codespell:ignore ative
    **{"icate": "ic", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""},
}
# endings that vanish if the measure is above 1, the longest that fits; "ion" only behind s or t
STEP_4 = (
    "ement ance ence able ible "
    "ment "  # codespell:ignore ment
    "ant ent ism ate iti ous ive ize al er ic ou ion"
).split()


@lru_cache(maxsize=100_000)
def porter_stem(word: str) -> str:
    """The stem of a word, which is made lower-case."""
    word = word.lower()
    if word in IRREGULAR:
        return IRREGULAR[word]
    if len(word) <= 2:
        return word
    word = final_y(past(plural(word)))
    word = derived(word)
    word = replaced(word, STEP_3)
    return tidied(dropped(word))


def consonants(word: str) -> list[bool]:
    """For each letter whether it sounds as a consonant: y does at the start and behind a vowel."""
    kinds: list[bool] = []
    for place, letter in enumerate(word):
        if letter == "y" and place:
            kinds.append(not kinds[-1])
        else:
            kinds.append(letter not in VOWELS)
    return kinds


def measure(stem: str) -> int:
    kinds = consonants(stem)
    return sum(second and not first for first, second in zip(kinds, kinds[1:], strict=False))


def has_vowel(stem: str) -> bool:
    return not all(consonants(stem))


def ends_in_double(word: str) -> bool:
    return len(word) >= 2 and word[-1] == word[-2] and consonants(word)[-1]


def ends_short(word: str) -> bool:
    """Consonant, vowel, consonant that is not w, x or y; NLTK: or a word of a vowel and a consonant."""
    kinds = consonants(word)
    if len(word) == 2:
        return not kinds[0] and kinds[1]
    return kinds[-3:] == [True, False, True] and word[-1] not in "wxy"


def plural(word: str) -> str:  # step 1a
    if word.endswith("ies"):
        return word[:-1] if len(word) == 4 else word[:-2]  # NLTK: "dies" is "die"
    if word.endswith("sses"):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def past(word: str) -> str:  # step 1b
    if word.endswith("ied"):  # NLTK
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if measure(word[:-3]) else word
    for ending in ("ed", "ing"):
        stem = word.removesuffix(ending)
        if stem != word and has_vowel(stem):
            break
    else:
        return word
    if stem.endswith(("at", "bl", "iz")):
        return stem + "e"
    if ends_in_double(stem):
        return stem if stem[-1] in "lsz" else stem[:-1]
    return stem + "e" if measure(stem) == 1 and ends_short(stem) else stem


def final_y(word: str) -> str:  # step 1c
    # NLTK: only behind a consonant that is not the first letter, so that "say" stays and "happy" becomes "happi"
    return word[:-1] + "i" if word[-1] == "y" and len(word) > 2 and consonants(word)[-2] else word


def derived(word: str) -> str:  # step 2
    if word.endswith("alli") and measure(word[:-4]):
        return derived(word[:-4] + "al")  # NLTK looks again
    if word.endswith("logi"):  # NLTK
        return word[:-1] if measure(word[:-3]) else word
    return replaced(word, STEP_2)


def replaced(word: str, endings: dict[str, str]) -> str:
    """The longest ending that fits is the only one that is tried."""
    ending = max((ending for ending in endings if word.endswith(ending)), key=len, default="")
    if not ending:
        return word
    stem = word[: -len(ending)]
    return stem + endings[ending] if measure(stem) else word


def dropped(word: str) -> str:  # step 4
    ending = next((ending for ending in STEP_4 if word.endswith(ending)), "")
    if not ending:
        return word
    stem = word[: -len(ending)]
    if ending == "ion" and stem[-1:] not in ("s", "t"):
        return word
    return stem if measure(stem) > 1 else word


def tidied(word: str) -> str:  # steps 5a and 5b
    if word.endswith("e"):
        stem = word[:-1]
        if measure(stem) > 1 or (measure(stem) == 1 and not ends_short(stem)):
            word = stem
    return word[:-1] if word.endswith("ll") and measure(word[:-1]) > 1 else word
