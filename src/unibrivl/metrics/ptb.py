"""Caption tokens as the COCO evaluation cuts them: the Penn Treebank rules of Stanford's tokenizer, without Java.

Scores of captions depend on how words are cut, so every caption metric of the literature speaks of the tokens of one
program: Stanford's PTBTokenizer 3.4.1, lower-case, minus a list of punctuation. `ptb_tokenize` follows what that
program does to the text of captions; `unibrivl.metrics.meteor.java_tokenize` runs the program itself, where Java and
the extra are installed. Results carry the name of the one that was used.

What surprises: "isn't" is "is n't" and "cannot" is "can not"; round brackets stay as -lrb- and -rrb- and square ones
as -lsb- and -rsb- (the list of what is removed has them in capitals, after everything was made lower-case); "!!" stays
and "!" goes; "and/or" and "sing.then" are one token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["ptb_tokenize"]

# What COCO removes. Its list also has -LRB- and friends, which never match lower-case tokens.
REMOVED = frozenset({"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"})
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "{": "-lcb-", "}": "-rcb-", "[": "-lsb-", "]": "-rsb-"}

# Characters that the program writes as others before it looks at them.
REWRITTEN = {
    **dict.fromkeys((0x2018, 0x2019, 0x201A, 0x201B, 0x2039, 0x203A, 0x0091, 0x0092), "'"),
    **dict.fromkeys((0x201C, 0x201D, 0x201E, 0x201F, 0x00AB, 0x00BB, 0x0093, 0x0094), '"'),
    **dict.fromkeys((0x2013, 0x2014, 0x2015, 0x0096, 0x0097), "--"),
    0x2026: "...",
    0x00A3: "#",
    0x20AC: "$",
    0x00BD: " 1/2 ",
    0x00BC: " 1/4 ",
    0x00BE: " 3/4 ",
    0x2153: " 1/3 ",
    0x2154: " 2/3 ",
}

# A dot stays with these, whatever follows. In any case:
DOTTED = (
    "pres "  # codespell:ignore pres
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri mr mrs ms dr prof jr sr "
    "lt gen col maj capt cpl pvt sgt gov sen rep rev hon messrs st ave blvd rd dept univ inc co corp ltd bros "
    "vs cf al est tel ext mt sq esq asst adm cmdr comdr mfg assn bldg ga calif fla mich va ariz ala conn md "
    "minn mo neb nev okla tenn wis wyo ind insp supt invt elec natl seq bhd ct intl brig adj adv etc ft ph.d"
).split()
# Written with a capital only, since "miss" and "mass" are words:
DOTTED_NAMES = "Tex Ill Mass Pa Wash Ore Ark Del La Miss".split()  # codespell:ignore ore
DOTTED_BEFORE_NUMBER = "fig no nos pp ca art op".split()
WHOLE = "'em 'til 'cause 'n'".split()  # an apostrophe that begins a word
SPLIT = {  # words that are two
    **{"cannot": "can not", "gonna": "gon na", "gotta": "got ta", "wanna": "wan na", "lemme": "lem me"},
    **{"gimme": "gim me", "'tis": "'t is", "'twas": "'t was", "more'n": "more 'n"},
}

LETTER = r"[^\W\d_]"
WORD = r"(?:\w|[\u0300-\u036f\u00ad])+"
CLITIC = r"'(?:s|d|m|ll|re|ve)(?!\w)"
TOKEN = re.compile(
    "|".join(
        (
            r"(?P<address>(?:https?://|www\.)[^\s\"<>]*[^\s\"<>.,;:!?(){}\[\]']|[\w.+-]+@[\w-]+(?:\.[\w-]+)*)",
            r"(?P<bracket>-[LR][RCS]B-)",
            r"(?P<tag></?[A-Za-z][^<>]*>|[@#][A-Za-z_]\w*|(?<!\w)[Cc](?:\+\+|#)|(?<!\w)[Ff]#)",
            rf"(?P<clitic>(?i:{CLITIC}|n't(?!\w)))",
            r"(?P<decade>(?<!\d)'\d\ds?(?!\w))",
            rf"(?P<whole>(?i:{'|'.join(map(re.escape, WHOLE))})(?!\w)|(?i:(?<=\w)'n')(?=\w))",
            rf"(?P<split>(?i:{'|'.join(map(re.escape, SPLIT))})(?!\w))",
            rf"(?P<negated>(?i:{LETTER}+?(?=n't(?!\w))))",
            r"(?P<you>(?i:y')(?=\w))",
            r"(?P<initials>(?:[A-Z]+&)+[A-Z]+(?!\w)|(?:[A-Za-z]\.){2,}|[A-Za-z]\.[A-Za-z](?!\w)|[A-Za-z]\.(?=\s|$))",
            rf"(?P<dotted>(?<!\w)(?:(?i:{'|'.join(map(re.escape, DOTTED))})|{'|'.join(DOTTED_NAMES)})\.(?!\w)"
            rf"|(?<!\w)(?i:{'|'.join(DOTTED_BEFORE_NUMBER)})\.(?=\s*\d))",
            rf"(?P<elided>(?i:[dlo]'{LETTER}{LETTER}+|ma'am))",
            r"(?P<fraction>\d+/\d+)",
            rf"(?P<hyphened>{WORD}(?:-{WORD})+)",
            rf"(?P<glued>{LETTER}\w*(?:[.!?]{LETTER}+)+(?!\w)|{LETTER}+(?:/{LETTER}+)+)",
            r"(?P<number>[-+]?\d*(?:[.,:]\d+)+|[-+]\d+(?!\w)|[-+]\d+)",
            r"(?P<dollar>[A-Z]+\$)",
            rf"(?P<word>{WORD})",
            r"(?P<face>[:;=][-o*']?[()DPp3](?!\w))",
            r"(?P<run>\.{3,}|[!?]+|-{2,}|\*+|#{2,})",
            r"(?P<other>\S)",
        )
    )
)
# Most captions: letters, spaces, commas, a full stop at the end. Nothing in them is to be decided, unless a word is
# one of these, or the full stop stands behind one that could be an abbreviation.
PLAIN = re.compile(r"([A-Za-z ,]*)(\.?)")
TWO_IN_ONE = frozenset(word for word in SPLIT if word.isalpha())
MAY_BE_SHORT = frozenset([*DOTTED, *(name.lower() for name in DOTTED_NAMES), *"abcdefghijklmnopqrstuvwxyz"])


def ptb_tokenize(texts: Sequence[str]) -> list[str]:
    """Captions as lower-case tokens with one space between them, without punctuation.

    Args:
        texts (`Sequence[str]`): captions. Line breaks count as spaces.

    Returns:
        `list[str]`: one string for each caption; empty where nothing but punctuation was in it.
    """
    if isinstance(texts, str):
        raise ValueError("ptb_tokenize takes a list of captions, not one string: write [caption]")
    return [tokenize_one(text) for text in texts]


def tokenize_one(text: str) -> str:
    plain = PLAIN.fullmatch(text.rstrip())
    if plain:
        words = plain[1].lower().replace(",", " ").split()
        if TWO_IN_ONE.isdisjoint(words) and not (plain[2] and words and words[-1] in MAY_BE_SHORT):
            return " ".join(words)
    tokens = []
    for match in TOKEN.finditer(text.translate(REWRITTEN)):
        tokens += written(match.lastgroup or "other", match.group().lower())
    return " ".join(token for token in tokens if token not in REMOVED)


def written(kind: str, token: str) -> list[str]:
    """The tokens that are printed for one match, in lower case."""
    if kind == "split":
        return SPLIT[token].split(" ")
    if kind in {"face", "other"}:
        if ord(token[0]) > 0xFFFF:
            return []  # emoji: the program knows no character above 16 bits and drops them
        for bracket, name in BRACKETS.items():
            token = token.replace(bracket, name)
    elif kind == "run" and token[0] in ".-":
        return []
    elif kind == "tag":
        return token.split()
    return [token] if token != '"' else []
