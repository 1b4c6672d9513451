"""What `small_captioner` may say of a class: sentences that are true of all its clips, and what names it in a text.

A pack says of a clip what it is of and no more. So a sentence here names the class and what it does to be heard, and
nothing of how many there are, where, how loud or how often: that would be true of some clips only.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from unibrivl.training.recipes.small_world import DIGITS

# label -> what names it (any of these, as a pattern of whole words), two sentences, and the thing as it is heard
THINGS: dict[str, tuple[str, str, str, str]] = {
    "airplane": (r"(air)?planes?|jets?|aircraft", "an airplane flies", "an airplane is flying", "an airplane"),
    "breathing": (r"breath\w*", "a person breathes", "somebody is breathing", "a person breathing"),
    "brushing_teeth": (r"brush\w*|toothbrush\w*", "somebody brushes teeth", "teeth are brushed", "brushing of teeth"),
    "can_opening": (r"a can (is|being)|opens a can", "a can is opened", "somebody opens a can", "a can being opened"),
    "car_horn": (r"horns?|honk\w*", "a car horn sounds", "a car is honking", "a honking car"),
    "cat": (r"cats?|kittens?|meow\w*", "a cat meows", "a cat is meowing", "a meowing cat"),
    "chainsaw": (r"chain ?saws?", "a chainsaw runs", "a chainsaw is running", "a running chainsaw"),
    "chirping_birds": (r"birds?", "birds chirp", "birds are chirping", "chirping of birds"),
    "church_bells": (r"bells?", "church bells ring", "bells are ringing", "ringing of church bells"),
    "clapping": (r"clap\w*|applau\w*", "hands clap", "hands are clapping", "clapping of hands"),
    "clock_alarm": (r"alarms?", "an alarm clock goes off", "an alarm is sounding", "an alarm clock"),
    "clock_tick": (r"(?<!alarm )clocks?|tick\w*", "a clock ticks", "a clock is ticking", "a ticking clock"),
    "coughing": (r"cough\w*", "a person coughs", "somebody is coughing", "a person coughing"),
    "cow": (r"cows?|cattle|moo\w*", "a cow moos", "a cow is mooing", "a mooing cow"),
    "crackling_fire": (r"fire|crackl\w*", "a fire crackles", "a fire is crackling", "a crackling fire"),
    "crickets": (r"crickets?", "crickets chirp", "crickets are chirping", "chirping of crickets"),
    "crow": (r"crow|caw\w*", "a crow caws", "a crow is cawing", "a cawing crow"),
    "crying_baby": (r"baby|babies|infants?", "a baby cries", "a baby is crying", "a crying baby"),
    "dog": (r"dogs?|bark\w*|pupp(y|ies)", "a dog barks", "a dog is barking", "a barking dog"),
    "door_wood_creaks": (r"creak\w*", "a door creaks", "a wooden door is creaking", "a creaking door"),
    "door_wood_knock": (r"knock\w*", "somebody knocks on a door", "a door is knocked on", "knocking on a door"),
    "drinking_sipping": (r"drink\w*|sip\w*", "a person drinks", "somebody is drinking", "a person drinking"),
    "engine": (r"engines?|motors?", "an engine runs", "an engine is running", "a running engine"),
    "fireworks": (r"fireworks?", "fireworks go off", "fireworks are going off", "a firework"),
    "footsteps": (r"footsteps?", "footsteps sound", "footsteps are heard", "the noise of footsteps"),
    "frog": (r"frogs?|croak\w*", "a frog croaks", "a frog is croaking", "a croaking frog"),
    "glass_breaking": (r"glass\w*", "glass breaks", "glass is breaking", "breaking of glass"),
    "hand_saw": (r"saws?|sawing", "somebody saws by hand", "a hand saw is used", "a hand saw"),
    "helicopter": (r"helicopters?", "a helicopter flies", "a helicopter is flying", "a flying helicopter"),
    "hen": (r"hens?|chickens?|cluck\w*", "a hen clucks", "a hen is clucking", "a clucking hen"),
    "insects": (r"insects?|bees?", "insects buzz", "insects are buzzing", "buzzing of insects"),
    "keyboard_typing": (r"keyboards?|typ(es?|ing)", "somebody types on a keyboard", "a keyboard is used", "typing"),
    "laughing": (r"laugh\w*", "a person laughs", "somebody is laughing", "laughter"),
    "mouse_click": (r"(computer )?mouse", "a computer mouse clicks", "a mouse is clicked", "a clicking mouse"),
    "pig": (r"pigs?|oink\w*", "a pig makes a noise", "a pig is making a noise", "a pig"),
    "pouring_water": (r"pour\w*", "somebody pours water", "water is poured", "pouring of water"),
    "rain": (r"rain\w*", "rain falls", "rain is falling", "falling rain"),
    "rooster": (r"roosters?|cockerels?", "a rooster crows", "a rooster is crowing", "a crowing rooster"),
    "sea_waves": (r"waves?|sea|ocean|surf", "sea waves break", "waves of the sea are breaking", "breaking sea waves"),
    "sheep": (r"sheep|bleat\w*|lambs?", "a sheep bleats", "a sheep is bleating", "a bleating sheep"),
    "siren": (r"sirens?", "a siren wails", "a siren is wailing", "a wailing siren"),
    "sneezing": (r"sneez\w*", "a person sneezes", "somebody is sneezing", "a person sneezing"),
    "snoring": (r"snor\w*", "a person snores", "somebody is snoring", "a person snoring"),
    "thunderstorm": (r"thunder\w*", "thunder rumbles", "thunder is rumbling", "a thunderstorm"),
    "toilet_flush": (r"toilets?|flush\w*", "a toilet flushes", "a toilet is flushed", "flushing of a toilet"),
    "train": (r"trains?", "a train goes by", "a train is going by", "a train"),
    "vacuum_cleaner": (r"vacuum\w*", "a vacuum cleaner runs", "a vacuum cleaner is running", "a vacuum cleaner"),
    "washing_machine": (r"washing machines?", "a washing machine runs", "a washing machine is running",
                        "a washing machine"),
    "water_drops": (r"drip\w*|drops?", "water drips", "water is dripping", "dripping water"),
    "wind": (r"wind", "wind blows", "the wind is blowing", "blowing wind"),
}  # fmt: skip
OF_A_THING = ("{}", "the sound of {}", "{} can be heard")
OF_A_WORD = ("somebody says {}", "a voice says {}", "the word {} is spoken", "the spoken word {}")


def sentences(label: str) -> tuple[str, ...]:
    """All that is said of a clip of this class, in lower case and without punctuation."""
    if label in DIGITS:
        return tuple(template.format(label) for template in OF_A_WORD)
    if label not in THINGS:
        raise ValueError(f"there are no sentences for {label!r}: {__name__.rpartition('.')[2]}.py has them by class")
    _, first, second, thing = THINGS[label]
    return (first, second, *(template.format(thing) for template in OF_A_THING))


@functools.cache
def pattern(label: str) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{label if label in DIGITS else THINGS[label][0]})\b")


def named(text: str, labels: Iterable[str]) -> frozenset[str]:
    """Which of these classes a text names. Words are looked for, nothing is understood."""
    return frozenset(label for label in labels if pattern(label).search(text))
