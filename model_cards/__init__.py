"""Model cards: the template, the facts of every preset, and the cards `unibrivl card --presets` renders."""
