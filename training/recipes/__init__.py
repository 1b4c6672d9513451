"""Recipes: a run is a function that returns one frozen config, and a function that builds its parts.

A recipe is a module of this folder with `config() -> RunConfig` and `build(config) -> Parts`. Only the one that is
asked for is imported.
"""

from __future__ import annotations

import difflib
import importlib
from types import ModuleType

# name -> one line for `unibrivl train` without a recipe
RECIPES = {
    "audio_token": "sounds become words of a frozen Stable Diffusion, by one adapter for all of them",
    "speechlm": "SpeechLM is pre-trained on any folder of sounds, without labels",
    "pairs": "a folder of sounds and pictures: which belong together",
    "brewclip": "BrewCLIP, or SpeechCLIP: spoken captions find pictures, by what was said and by how it sounded",
    "captioner": "a language model says in words what a frozen UniBriVL hears: captions, of Clotho or your own",
    "cavmae": "CAV-MAE's pre-training on pairs, from an image MAE or from nothing: hidden and rebuilt, and matched",
    "cavmae_classes": "CAV-MAE is told classes by sounds and their pictures, with its mixtures, masks and noise",
    "cavtmae": "AAI's CAVT-MAE on VGGSound: sounds meet the words of their labels and their pictures",
    "photos": "a small image tower learns to name a pack's pictures, for sounds_and_pictures",
    "sounds": "the tower of sounds_and_pictures learns ESC-10 by its classes: what that is measured against",
    "sounds_and_pictures": "a small UniBriVL learns from real recordings and pictures that share a label",
    "small_brewclip": "a small BrewCLIP from nothing: spoken captions in noise find pictures of their class",
    "small_captioner": "a small language model from nothing says what the embedded model hears",
    "small_cavmae": "a small CAV-MAE from nothing: sounds and pictures of one class, hidden and rebuilt",
    "small_cavtmae": "a small CAVT-MAE from it: sounds meet words and pictures that stay where they are",
    "small_generator": "the embedded model's UNet: pictures from texts",
    "small_latents": "the embedded model's autoencoder of pictures",
    "small_pictures": "the embedded model's image tower, or the judge of its pictures",
    "small_sounds": "the embedded model's UniBriVL: sounds meet pictures and words",
    "small_tone": "a small BrewCLIP from nothing tells how something was said, on actors it has not heard",
    "small_words": "the embedded model's tokenizer and text encoder, in the image tower's space",
    "tones": "coloured tones: a world that is made up as it trains, in under a minute, to check that everything works",
}


def load_recipe(name: str) -> ModuleType:
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(RECIPES)}"
        raise ValueError(f"there is no recipe {name!r}: {hint}")
    return importlib.import_module(f"unibrivl.training.recipes.{name}")
