"""Records what the reference libraries say about made-up inputs: peers.json, which the tests compare with.

They cannot be dependencies of the tests: sed_eval needs setuptools below 81 and brings twenty packages, pycocoevalcap
is a wheel of 100 MB and needs Java. To run this again, in an environment of its own:

    pip install sed_eval "setuptools<81" pycocoevalcap nltk jiwer
    python tests/golden/metrics/record.py
"""

from __future__ import annotations

import json
import math
import random
from importlib.metadata import version
from pathlib import Path

PRESETS = {
    "segment_1s": {"time_resolution": 1.0},
    "segment_0.1s": {"time_resolution": 0.1},
    "event_sed_eval_default": {"t_collar": 0.2, "percentage_of_length": 0.5, "evaluate_offset": True},
    "event_dcase": {"t_collar": 0.2, "percentage_of_length": 0.2, "evaluate_offset": True},
    "event_onset_only": {"t_collar": 0.2, "percentage_of_length": 0.5, "evaluate_offset": False},
}
LIMIT_S = 8.05  # a duration that cuts events in two

# What captions hold beside words: every rule of the tokenizer, and what it does not expect.
HARD_TEXTS = r"""
The colour of the harbour's theatre isn't analysed; it's honoured.
He cannot go, gonna wanna gotta lemme gimme dunno 'tis 'twas more'n d'ye
I'd we'll they've you're she's o'clock rock'n'roll 'em y'all ma'am dogs' ain't won't shan't
'hello' she said 'goodbye'. "nested 'quotes'"
it costs $5.50 or 10,000 pounds, 1/2 of 3-4 items; 50% off #1 +5 -3 1990s '90s 2nd
a -- b --- c - d -e f- g--h well-known e-mail x-ray
dots... more.... two.. end . e.g. i.e. etc. Mr. Smith vs. Dr. U.S. a.m. p.m. no. St.
at 10:30 a.m. and 5p.m. 3.5kHz 60hz 440Hz 3 kHz.
[brackets] {braces} (paren) ((twice))
and/or w/ w/o a / b 24/7 approaching/passing
http://www.example.com/x?y=1 me@example.com @user #tag www.example.com
A & B AT&T R&B rock&roll *star* under_score a+b=c ~ ^ | `tick` ``dq''
!! ?! ,, ;; :: hello:world a:b 3:00 10:30pm
birds chirp,and sing.Then stop
word.Word word,word word;word word:word word!word word?word
test (a) :) :-( ;) :D :3
he's 'bout goin' rockin' 'n' the
No. 5 is a.b.c. and U.K. Ph.D. Inc. Corp. Co. Ltd.
high-pitched beep-beep-beep 10-second 5-10 well--known
can't've shouldn't've I'd've who'd that'd it'll he'S
the 1950's and 80's 1980s' '60s
approx. 5 min. fig. 5 fig. five miss. Miss. mass. in. ft. sec. hz. mon. sun.
half-a-dozen re-do pre- anti-dog mid-range, mid- range
caf\u00e9 na\u00efve \u201ccurly\u201d \u2018single\u2019 it\u2019s don\u2019t \u2013 \u2014 \u2026 \u20ac5 \u00a35 3\u00b0C
\u65e5\u672c\u8a9e \u0440\u0443\u0441\u0441\u043a\u0438\u0439 \U0001f600 emoji \u2605
<b>text</b> < > c++ c# f# ## **
"""


def events(rng: random.Random) -> list[dict]:
    import dcase_util
    import sed_eval

    def as_list(rows, name):
        keys = ("event_onset", "event_offset", "event_label")
        return dcase_util.containers.MetaDataContainer(
            [{"filename": name, **dict(zip(keys, row, strict=True))} for row in rows]
        )

    def event(labels, grid):
        onset, length = rng.uniform(0, 9), 0.05 + rng.choice((0.3, 1, 3)) * rng.random()
        if grid:
            onset, length = round(onset / grid) * grid, max(grid, round(length / grid) * grid)
        return [round(onset, 3), round(min(10.0, onset + length), 3), rng.choice(labels)]

    def moved(row, labels):
        shift = rng.choice((0, 0.1, -0.1, 0.2, rng.gauss(0, 0.2)))
        onset = max(0.0, row[0] + shift)
        offset = max(onset, row[1] + rng.choice((0, 0.1, 0.2, -0.2, rng.gauss(0, 0.5))))
        return [round(onset, 3), round(offset, 3), row[2] if rng.random() < 0.8 else rng.choice(labels)]

    def number(value):
        return None if math.isnan(value) else round(float(value), 10)

    cases = []
    for _ in range(30):
        labels = list("abcd")[: rng.randint(1, 4)]
        grid = rng.choice((None, 0.1, 0.05))
        reference = {f"{i}.wav": [event(labels, grid) for _ in range(rng.randint(0, 6))] for i in range(3)}
        estimated = {
            name: [moved(row, labels) for row in rows if rng.random() < 0.8]
            + [event(labels, grid) for _ in range(rng.randint(0, 2))]
            for name, rows in reference.items()
        }
        results = {}
        for name, arguments in PRESETS.items():
            for limit in (None, LIMIT_S) if name.startswith("segment") else (None,):
                kind = "SegmentBasedMetrics" if name.startswith("segment") else "EventBasedMetrics"
                judge = getattr(sed_eval.sound_event, kind)(labels, **arguments)
                for file in reference:
                    extra = {"evaluated_length_seconds": limit} if name.startswith("segment") else {}
                    judge.evaluate(as_list(reference[file], file), as_list(estimated[file], file), **extra)
                overall, average = judge.results_overall_metrics(), judge.results_class_wise_average_metrics()
                counted = judge.overall["Nref"] > 0
                results[name if limit is None else f"{name}_limited"] = {
                    "micro": [number(overall["f_measure"][key]) for key in ("f_measure", "precision", "recall")],
                    "macro": [number(average["f_measure"][key]) for key in ("f_measure", "precision", "recall")],
                    "error_rate": number(overall["error_rate"]["error_rate"]) if counted else None,
                }
        cases.append({"labels": labels, "reference": reference, "estimated": estimated, "expected": results})
    return cases


def sentence(rng: random.Random) -> str:
    words = "dog dogs bark barks barking barked man men talks talking happily rain rains a the in on and with loud"
    return " ".join(rng.choice(words.split()) for _ in range(rng.choice((1, 2, 4, 7, 11, 16))))


def captions(rng: random.Random) -> dict:
    from nltk.stem.porter import PorterStemmer
    from nltk.translate.meteor_score import meteor_score
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge

    class NoSynonyms:
        def synsets(self, word):
            return []

    truth = {str(i): [sentence(rng) for _ in range(rng.randint(1, 5))] for i in range(40)}
    said = {
        key: " ".join(word for word in rng.choice(of_item).split() if rng.random() < 0.8) or "dog"
        for key, of_item in truth.items()
    }
    said["0"] = truth["0"][0]  # identical
    said["1"] = "dog"  # one word
    one_each = {key: [text] for key, text in said.items()}
    expected = {}
    of_corpus, of_items = Bleu(4).compute_score(truth, one_each, verbose=0)
    for n in range(4):
        expected[f"bleu{n + 1}"] = [of_corpus[n], list(of_items[n])]
    for name, judge in (("rouge_l", Rouge()), ("cider", Cider()), ("meteor", Meteor())):
        score, scores = judge.compute_score(truth, one_each)
        expected[name] = [float(score), [float(value) for value in scores]]
    stemmer = PorterStemmer()
    scores = [
        meteor_score([text.split() for text in truth[key]], said[key].split(), stemmer=stemmer, wordnet=NoSynonyms())
        for key in said
    ]
    expected["meteor_exact_stem"] = [sum(scores) / len(scores), scores]
    return {"hypotheses": said, "references": truth, "expected": expected}


def stems() -> dict[str, str]:
    from nltk.stem.porter import PorterStemmer

    beginnings = "a b re oper ab tree act rel comm run y ty say play hop hopp fall fizz sky x io st tri feed".split()
    endings = (
        "tional ational enci anci izer bli alli entli eli ousli ization ation ator alism iveness fulness ousness aliti "
        "iviti biliti fulli logi icate ative alize iciti ical ful ness al ance ence er ic able ible ant ement ment ent "
        "ion ou ism ate iti ous ive ize ed ing eed ied ies s es y e ll ally fully ology"
    ).split()
    whole = "skies dying lying tying news innings outings cannings howe proceed exceed succeed dies died generalizations"
    words = [*whole.split(), *(begin + end for begin in beginnings for end in endings)]
    stemmer = PorterStemmer()
    return {word: stemmer.stem(word) for word in words}


def tokens() -> list[list[str]]:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    texts = [line.encode().decode("unicode_escape") for line in HARD_TEXTS.strip().splitlines()]
    cut = PTBTokenizer().tokenize({number: [{"caption": text}] for number, text in enumerate(texts)})
    return [[text, cut[number][0]] for number, text in enumerate(texts)]


def words(rng: random.Random) -> list[dict]:
    import jiwer

    cases = []
    for _ in range(60):
        reference = " ".join(rng.choice("abcdefg") * rng.randint(1, 3) for _ in range(rng.randint(1, 25)))
        kept = [rng.choice(("x", "a", "", word + " b")) if rng.random() < 0.3 else word for word in reference.split()]
        hypothesis = " ".join(" ".join(kept).split())
        by_word, by_character = jiwer.process_words(reference, hypothesis), jiwer.process_characters(reference, hypothesis)
        errors = [o.substitutions + o.deletions + o.insertions for o in (by_word, by_character)]
        cases.append({"reference": reference, "hypothesis": hypothesis, "errors": errors})
    return cases


if __name__ == "__main__":
    rng = random.Random(2021)
    record = {
        "versions": {name: version(name) for name in ("sed_eval", "pycocoevalcap", "nltk", "jiwer")},
        "limit_s": LIMIT_S,
        "events": events(rng),
        "captions": captions(rng),
        "stems": stems(),
        "tokens": tokens(),
        "words": words(rng),
    }
    path = Path(__file__).with_name("peers.json")
    path.write_text(json.dumps(record, separators=(",", ":")) + "\n")
    print(f"{path}: {path.stat().st_size} bytes")
