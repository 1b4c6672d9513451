"""The label bank: things that sound, each as a few words that a picture can be of, ordered by theme.

A pipeline that is given a sound and no prompt reads it: the labels nearest to the sound become prompts. The list is
our own, and any other takes its place with `label_bank=`.
"""

THEMES: dict[str, str] = {
    "dogs and cats": """
        a barking dog, a howling dog, a growling dog, a whining puppy, a pack of barking dogs,
        a wolf howling in the snow, a meowing cat, a purring cat on a sofa, a hissing cat, a cat lapping milk
    """,
    "farm": """
        a mooing cow, a herd of cows with bells, a neighing horse, a galloping horse, a horse trotting on
        cobblestones, a horse and carriage, a braying donkey, a bleating sheep, a flock of sheep on a hill, a
        bleating goat, a grunting pig, a squealing piglet, a crowing rooster, a clucking hen, chicks in a nest
        box, a gobbling turkey, a quacking duck, ducks on a village pond, a honking goose, a beehive in an
        orchard
    """,
    "birds": """
        a songbird on a branch, birds singing at dawn in a forest, a nightingale in a bush, a blackbird on a
        roof, a sparrow in a hedge, a cooing pigeon, a flock of pigeons taking off, a cawing crow, a raven on
        a dead tree, a hooting owl at night, a cuckoo in a spring forest, a woodpecker on a trunk, a screaming
        seagull, seagulls over a harbour, a crying eagle, a chattering parrot, a swan on a lake, flying geese
        in autumn, a colony of penguins, a rustling flock of starlings, a kookaburra in a gum tree
    """,
    "wild animals": """
        a roaring lion, a growling tiger, a trumpeting elephant, a chattering monkey, a howler monkey in the
        jungle, a chimpanzee, a growling bear, a barking fox at night, a roaring red deer, a wild boar in the
        undergrowth, a barking seal on a rock, a whale under water, a jumping dolphin, a humpback whale
        breaching, a squeaking mouse, a squirrel in a tree, a croaking frog in a pond, frogs in a swamp at
        night, a hissing snake, a rattlesnake
    """,
    "insects": """
        a buzzing bee on a flower, a swarm of bees, a buzzing fly on a window, a mosquito, a wasp at a glass
        of juice, a chirping cricket in the grass, crickets on a summer night, a cicada on a tree
    """,
    "water": """
        ocean waves on a beach, waves breaking on rocks, a storm at sea, a large waterfall, a small waterfall
        in a forest, a babbling brook, a wide river, white water rapids, a mountain spring, a dripping cave, a
        dripping tap, water running into a sink, a bathtub filling with water, a shower, a flushing toilet, a
        garden hose, a lawn sprinkler, water poured into a glass, a boiling pot of water, a splash in a pool,
        a diver under water, bubbles under water, a paddling canoe, a cracking glacier, a geyser
    """,
    "weather": """
        light rain on leaves, heavy rain on a window, rain on a tin roof, rain on an umbrella, a puddle in the
        rain, a downpour in a city street, a thunderstorm, lightning over a field, distant thunder over hills,
        hail on a car, a strong wind in trees, wind over a desert dune, a snowstorm, a blizzard in the
        mountains, a tornado, a flag in the wind, wind chimes on a porch, a windmill, rustling autumn leaves,
        footsteps in deep snow
    """,
    "earth and fire": """
        a campfire, a crackling fireplace, a burning house, a forest fire, a struck match, a lit candle, a
        sparkler, fireworks in the night sky, an exploding bomb, a volcano erupting, a rockslide, an
        avalanche, a collapsing building
    """,
    "voices": """
        a man speaking, a woman speaking, a child speaking, a man giving a speech, a teacher in a classroom, a
        whispering couple, a shouting man, a screaming woman, a man on the telephone, a radio presenter in a
        studio, a sports commentator, an auctioneer, a street vendor calling, a laughing man, a laughing
        woman, a giggling child, a laughing baby, a crying baby, a babbling toddler, a sobbing woman, a
        sneezing man, a coughing woman, a person with hiccups, a snoring man, a person breathing heavily, a
        person humming, a whistling man, a gargling person, a person chewing an apple, a person drinking
        through a straw, a beating heart
    """,
    "crowds": """
        an applauding audience, a cheering crowd, a football stadium full of fans, a chanting protest march, a
        crowded restaurant, a busy cafe, children in a playground, a school corridor, a swimming pool full of
        children, a street market, a shopping centre, a railway station hall, an airport terminal, a theatre
        before the play, an open plan office, a parade with a marching band, a carnival in the street, a
        circus tent, a fairground
    """,
    "singing": """
        a choir in a church, a boys' choir, a gospel choir, an opera singer on a stage, a singing woman with a
        microphone, a singing man with a guitar, a rapper on a stage, a lullaby at a cradle, a yodelling man
        in the mountains, a beatboxer, people singing around a campfire
    """,
    "strings and keys": """
        a grand piano on a stage, an upright piano in a living room, an old harpsichord, a church organ, an
        electric organ, an accordion player in the street, a synthesizer, an acoustic guitar, an electric
        guitar, a bass guitar, a banjo on a porch, a ukulele on a beach, a sitar player, a harp, a violin
        player, a string quartet, a cello player, a double bass in a jazz bar, a hurdy gurdy, a music box
    """,
    "winds and drums": """
        a flute player, a recorder in a classroom, a clarinet player, a bassoon player, a saxophone player at
        night, a trumpet player, a trombone player, a french horn, a tuba in a brass band, a didgeridoo
        player, a pan flute, bagpipes in the highlands, a harmonica player, a drum kit, a snare drum, a
        kettledrum, bongo drums, a djembe circle, a tabla player, a tambourine, cymbals, a gong, a xylophone,
        a marimba, castanets, singing bowls, sleigh bells
    """,
    "music": """
        a symphony orchestra, a rock concert, a heavy metal band, a jazz band, a country band, a reggae band,
        a folk dance in a village, a techno club, a disco with a mirror ball, a record player, a jukebox, a
        street musician, a flamenco dancer, a tap dancer, an old gramophone
    """,
    "cars and roads": """
        a passing car on a country road, a busy city street, a motorway with heavy traffic, a traffic jam, a
        racing car on a track, a skidding car, a car crash, a car engine idling, a car starting on a cold
        morning, a car horn, a car alarm in a parking lot, a car wash, windscreen wipers in the rain, a
        slamming car door, a passing truck, a reversing lorry, a rubbish truck, a city bus, a police car with
        a siren, an ambulance with a siren, a fire engine with a siren, a motorcycle, a moped, a bicycle with
        a bell, a skateboard on a ramp, a person on roller skates, a tractor on a field, a combine harvester,
        a snow plough, a tank
    """,
    "trains, ships and planes": """
        a steam locomotive, a passing freight train, a high speed train, an underground train, a tram in a
        city, a train at a level crossing, a train whistle in a valley, a roller coaster, a jet plane taking
        off, a propeller plane, a passenger plane overhead, a fighter jet, a helicopter, a drone in the air, a
        hot air balloon, a rocket launch, a cruise ship, a foghorn at a lighthouse, a sailing boat in the
        wind, a motor boat, a rowing boat, a ferry in a harbour
    """,
    "kitchen": """
        a frying pan with sizzling eggs, a steak on a grill, a barbecue, a whistling kettle, a coffee machine,
        a coffee grinder, a blender with fruit, a food processor, a hand mixer in a bowl, a microwave oven, a
        toaster, a dishwasher, clattering dishes, cutlery in a drawer, knives chopping vegetables, a knife
        being sharpened, a can being opened, a popping champagne cork, beer poured into a glass, clinking
        glasses, a breaking glass, a soup pot simmering, popcorn in a pan
    """,
    "house": """
        a ticking clock, a grandfather clock, a cuckoo clock, a ringing alarm clock, a doorbell, a knock on a
        wooden door, a creaking door, a slamming door, a squeaking hinge, keys in a lock, a telephone on a
        desk, an old rotary telephone, a vibrating mobile phone, a vacuum cleaner, a washing machine, a tumble
        dryer, a hair dryer, an electric shaver, an electric toothbrush, a person brushing teeth, a sewing
        machine, an electric fan, an air conditioner, a humming refrigerator, an escalator, footsteps on
        wooden stairs, footsteps in high heels, creaking floorboards, a swing, a television, a smoke alarm, a
        person sweeping a floor, coins on a table, a ball of crumpled paper, a squeaking toy, a balloon that
        bursts
    """,
    "office": """
        a person typing on a keyboard, a typewriter, a computer mouse on a desk, a printer, a photocopier, a
        paper shredder, a stapler, turning pages of a book, a pencil on paper, chalk on a blackboard, a camera
        with a shutter, a cash register, a supermarket checkout, scissors cutting paper
    """,
    "workshop": """
        a hammer on a nail, a blacksmith at an anvil, a hand saw in wood, a circular saw, a chainsaw in a
        forest, an electric drill, a jackhammer on a street, an angle grinder with sparks, a sander on wood, a
        welding torch, a lathe, a ratchet wrench, a nail gun, an air compressor, an axe splitting wood, a
        falling tree, a shovel in gravel, a digger on a building site, a bulldozer, a pile driver, a conveyor
        belt, a factory hall, a power station, a weaving loom, a printing press, a sawmill, a generator, a
        diesel engine, a steam engine, a turbine, a lawn mower, a leaf blower, a hedge trimmer, a wheelbarrow,
        a rattling chain, a falling metal pipe
    """,
    "bells and signals": """
        a church bell tower, a small hand bell, a bicycle bell, a school bell, a ship's bell, a temple bell, a
        cow bell, a whistle of a referee, an air raid siren, a burglar alarm, a fire alarm bell, a metronome,
        a morse telegraph, a megaphone, a geiger counter, a hospital heart monitor
    """,
    "sport and fight": """
        a basketball on a court, a tennis match, a table tennis game, a football match, a golf swing, an ice
        hockey game, a bowling alley, a billiard table, a boxing match, a sword fight, a bow and arrow, a
        skier on a slope, an ice skater, a surfer on a wave, a jumping rope, a trampoline, a punching bag, a
        horse race, a rolling dice cup, a deck of cards being shuffled, a gunshot, a machine gun, a cannon, a
        cracking whip
    """,
}  # fmt: skip

LABELS: tuple[str, ...] = tuple(" ".join(label.split()) for labels in THEMES.values() for label in labels.split(","))

__all__ = ["LABELS", "THEMES"]
