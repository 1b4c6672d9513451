"""All sounds of a folder as vectors in one parquet file: `python examples/embed_folder.py [FOLDER]`.

Run it again when there are more sounds: what has not changed is not embedded again. It takes `pip install pyarrow`.
"""

import sys
from pathlib import Path

import numpy as np
import soundfile

import unibrivl
from unibrivl.cli.demo_sounds import SOUNDS
from unibrivl.embedder import embed_files, read_vectors

if len(sys.argv) > 1:
    folder = Path(sys.argv[1])
else:
    folder = Path("recordings")
    folder.mkdir(exist_ok=True)
    for one in SOUNDS[:6]:
        waveform = one.waveform()
        soundfile.write(folder / f"{one.name}.flac", waveform.samples, waveform.rate_hz)

embedder = unibrivl.load("embedded")
report = embed_files(embedder, sorted(folder.iterdir()), "vectors.parquet", texts=["a rooster", "a dog"])
vectors = read_vectors("vectors.parquet", kind="audio")
print(f"{report.rows} rows in vectors.parquet; most alike are")
scores = embedder.similarity(vectors, vectors)
np.fill_diagonal(scores, -1)
row, column = divmod(int(scores.argmax()), len(vectors))
print(f"  {Path(vectors.ids[row]).name} and {Path(vectors.ids[column]).name}, {scores.max():.3f}")
