"""The card of the small BrewCLIP that was trained here, rendered from what `learn_brewclip.py` measured.

    python benchmarks/card_brewclip.py > model_cards/brewclip-small.md

Numbers come from `results/learn_brewclip.json`; words that need judgement stand here.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from learn_brewclip import RESULTS, tables

CARD = """---
library_name: transformers
pipeline_tag: feature-extraction
license: cc-by-sa-4.0
tags:
- unibrivl
- brewclip
- audio
---

<!-- rendered by `benchmarks/card_brewclip.py` from measurements; change those, not this file -->

# A small BrewCLIP, trained here

BrewCLIP at the size of a laptop. The frozen towers are the small world's image tower and text encoder, of 64 pixels
and a vocabulary of labels, and there is no Whisper: the audio encoder is a residual network over log-mel frames that
is trained along with both channels. For captions it begins as the one of `small_sounds`, for the tone of voice from
nothing. It exists to show that the parts work together, and what each channel adds. The weights are not shipped; the
commands below make them.

## What it was trained on, and how

- Captions of the packs' open pictures ("this is a photo of a dog", "a handwritten seven"), {train} of them, said by
  eSpeak NG in 56 voices (7 accents, 8 speakers), at 0 to 20 dB over the noise of a room. Other pictures and 28 other
  voices (4 speakers) are the test part.
- Transcripts are the captions with words exchanged, left out and put in, more of them the louder the noise. No
  recogniser that installs here does well on these voices: PocketSphinx 5.1.1 with its own general language model
  got 93 words of 100 wrong on 244 of them, so errors are made to a stated rate instead.
- Tone of voice: RAVDESS, speech, ten actors; actors 11 and 12 are the test part. Two sentences, the same for all
  emotions, so words tell nothing.

```
unibrivl embedded --data PACKS                          # its stages words, pictures and sounds
python benchmarks/spoken_captions.py --data PACKS --out runs/spoken
unibrivl train --recipe small_brewclip --set data.folder=runs/spoken --set output_dir=runs/brewclip/both-0
unibrivl train --recipe small_tone --set data.folder=PACKS --set output_dir=runs/tone/four-text,e2e-0
python benchmarks/learn_brewclip.py --data PACKS --tone runs/tone --spoken runs/spoken --brewclip runs/brewclip
```

## What it can do

Intervals are of 95 %, differences paired on the same captions. "of both" is one channel of the model that has two,
"alone" a model that was trained with that channel only.

{tables}

Both channels of the model together find more than either of them, and the words the less the more of them are wrong.
A model that was trained to hear alone finds as much as both, within the interval: these captions are few words in
many voices, and ears that learn on just such captions need no transcript. That is not so of ears that must understand
any sentence.

## Limits and risks

- Voices are a synthesiser's and captions name one thing each: nothing here says how it does on people who talk.
- The transcripts' errors do not sound like what was said, as a recogniser's would. A channel that hears has an easier
  time beside them.
- One seed of the captions' models; {clips} clips of two actors for the tone: an accuracy moves by ten points with the
  actors.
- **A tone of voice is no feeling.** These are acted emotions, in a studio, in one language. Do not use it to decide
  about people.

## Licences

Code: Apache-2.0. Captions' models: CC BY-SA 4.0, as the strictest of their pictures' licences. Tone: RAVDESS is CC
BY-NC-SA 4.0, and so is what is trained on it. eSpeak NG's sounds carry no claim of its makers.
"""


def card(found: dict[str, Any]) -> str:
    clips = found.get("tone", {}).get("four", {}).get("clips", "-")
    return CARD.format(tables=tables(found), clips=clips, train=f"{found['spoken']['train_captions']:,}")


if __name__ == "__main__":
    sys.stdout.write(card(json.loads(RESULTS.read_text(encoding="utf-8"))))
