"""An index: a folder that knows files, holds their vectors, and finds the nearest of them.

The vectors lie in segments, one folder for each kind, and are the truth together with the catalogue; an engine other
than the exact one is made from them and can be made again. Whatever is written goes through one order: numbers are
begun in the catalogue, vectors are kept, numbers are known. A kill between two of these leaves numbers that the next
writer forgets.

Shapes: N rows, E embedding.
"""

from __future__ import annotations

import json
import logging
import shlex
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unibrivl.search.catalogue import Catalogue, Entry
from unibrivl.search.engine import Engine
from unibrivl.search.engines import (
    check_for_index,
    check_kept_options,
    check_usable,
    is_server,
    known_options,
    open_engine,
)
from unibrivl.search.exact import ExactEngine
from unibrivl.search.query import Query
from unibrivl.utils.files import locked, written_whole

FORMAT = 1
ABOUT, CATALOGUE = "index.json", "catalogue.sqlite"
KINDS = ("audio", "image", "text")
MORE = 4  # times as many vectors as files are asked for: a sound has several
MOST_ROOTS = 20  # folders whose names are kept, to say how to make it again

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hit:
    """Something that was found.

    Args:
        path (`str`): the file, or the name it was added under.
        kind (`str`): "audio", "image" or "text".
        score (`float`): the cosine with the query.
        begin_s, end_s (`float`, *optional*): of the best window, where there are windows.
        parts (`tuple[tuple[str, float], ...]`): each part of the query and its own cosine: why it was found.
    """

    path: str
    kind: str
    score: float
    begin_s: float | None
    end_s: float | None
    parts: tuple[tuple[str, float], ...]


class Index:
    """Open one with `Index.open` or `Index.create`, best in a `with`: leaving it writes what was added."""

    def __init__(self, folder: Path, about: dict[str, Any], write: bool):
        check_kept_options(about["engine"], about["engine_options"])
        if write:
            check_usable(about["engine"])  # now, and not when everything is embedded
        self.folder, self.about, self.write = folder, about, write
        self._stack = ExitStack()
        self._stores: dict[str, ExactEngine] = {}
        self._engines: dict[str, Engine] = {}
        self._kinds: list[str] | None = None
        self._waiting: list[tuple[Entry, Sequence[tuple[float, float]] | None, np.ndarray]] = []
        try:
            if write:
                self._stack.enter_context(locked(folder))
            self.catalogue = Catalogue(folder / CATALOGUE, read_only=not write)
            self._stack.callback(self.catalogue.close)
            if write:
                self._sweep()
        except BaseException:
            self._stack.close()
            raise

    @classmethod
    def create(
        cls,
        folder: str | Path,
        *,
        fingerprint: str,
        model: str = "",
        engine: str = "exact",
        engine_options: Mapping[str, Any] | None = None,
        dtype: str = "float32",
        settings: Mapping[str, Any] | None = None,
    ) -> Index:
        """A new index, open for writing.

        Args:
            fingerprint (`str`): of the model whose vectors it takes, and of no other.
            model (`str`): its name, for whoever searches later.
            engine (`str`): what searches; see `unibrivl.search.ENGINES`.
            engine_options (*optional*): for `open_engine`; "{kind}" in a string becomes the kind of the vectors.
                Where a server is and its password are no options of an index: the environment says them.
            dtype (`str`): how vectors are stored: "float32" or "float16".
            settings (*optional*): whatever else should be told by `about`.
        """
        folder = Path(folder)
        check_for_index(engine, engine_options or {})
        if (folder / ABOUT).exists():
            raise ValueError(f"{folder} holds an index already: open it, or choose another folder")
        if folder.is_dir() and any(path.name != "lock" for path in folder.iterdir()):
            raise ValueError(f"{folder} is not empty, and holds no index: choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "format": FORMAT,
            "fingerprint": fingerprint,
            "model": model,
            "width": None,
            "dtype": dtype,
            "engine": engine,
            "engine_options": dict(engine_options or {}),
            "settings": dict(settings or {}),
            "roots": [],
        }
        write_about(folder, about)
        return cls(folder, about, write=True)

    @classmethod
    def open(cls, folder: str | Path, *, write: bool = False) -> Index:
        """An index that is there. Any number of processes may read while one writes."""
        folder = Path(folder)
        return cls(folder, read_about(folder), write)

    def __enter__(self) -> Index:
        return self

    def __exit__(self, error: type[BaseException] | None, *about: object) -> None:
        self.close(flush=error is None)

    def __len__(self) -> int:
        """How many files and named things it knows."""
        return self.catalogue.count()

    def __repr__(self) -> str:
        return f"Index({len(self)} in {self.folder}, model {self.fingerprint[:12]}, engine {self.about['engine']})"

    @property
    def fingerprint(self) -> str:
        return self.about["fingerprint"]

    def kinds(self) -> list[str]:
        """Of which there is something; a reader counts once, as it sees the vectors that were there at its opening."""
        if self.write or self._kinds is None:
            self._kinds = [kind for kind in KINDS if self.catalogue.count(kind)]
        return list(self._kinds)

    def check_model(self, fingerprint: str, model: str = "") -> None:
        """Refuses vectors of another model, and says how to make the index anew."""
        if not fingerprint or fingerprint == self.fingerprint:
            return
        raise ValueError(
            f"{self.folder} holds vectors of {self.about['model'] or 'model'} {self.fingerprint[:12]}, and these are "
            f"of {model or 'model'} {fingerprint[:12]}: they cannot be compared. To make it anew: {self.remake(model)}"
        )

    def remake(self, model: str = "") -> str:
        """The command that makes this index anew."""
        roots = [shlex.quote(root) for root in self.about["roots"]] or ["PATH..."]
        model = shlex.quote(model or self.about["model"] or "MODEL")
        out = shlex.quote(str(self.folder))
        return f"unibrivl index {' '.join(roots)} --out {out} --model {model} --restart"

    def add(self, embeddings: Any) -> None:
        """Vectors under names: what `encode_audio`, `encode_image` and `encode_text` give, or the like.

        What has the same name and kind is replaced. With times, rows of one name are the windows of one thing.
        """
        self._check_writing()
        self.check_model(embeddings.fingerprint)
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(embeddings.ids):
            rows.setdefault(name, []).append(row)
        for name, mine in rows.items():
            times = None if embeddings.times is None else [embeddings.times[row] for row in mine]
            if times is None and len(mine) > 1:
                raise ValueError(f"{name!r} is there {len(mine)} times and has no times: names are for one thing each")
            self.keep(Entry(-1, name, embeddings.kind, windows=len(mine)), times, embeddings.vectors[mine])
        self.commit()

    def delete(self, paths: Iterable[str]) -> int:
        """Forget files or named things; how many there were."""
        self._check_writing()
        self.commit()
        found = [entry for path in paths for kind in KINDS if (entry := self.catalogue.at(path, kind)) is not None]
        with self.catalogue.change():
            self.catalogue.drop(found)
        return len(found)

    def keep(self, entry: Entry, times: Sequence[tuple[float, float]] | None, vectors_NE: np.ndarray) -> None:
        """Vectors of one thing, which count from the next `commit` on."""
        self._waiting.append((entry, times, vectors_NE))

    def commit(self) -> None:
        """What waits is known from now on, and survives a kill."""
        if not self._waiting:
            return
        latest = {(entry.path, entry.kind): (entry, times, vectors) for entry, times, vectors in self._waiting}
        self._waiting = []
        width = next(iter(latest.values()))[2].shape[1]
        if self.about["width"] is None:
            self.about["width"] = int(width)
            write_about(self.folder, self.about)
        with self.catalogue.change():
            entries = self.catalogue.begin([(entry, times) for entry, times, _ in latest.values()])
        begun = [(entry, vectors) for entry, (_, _, vectors) in zip(entries, latest.values(), strict=True)]
        for kind in KINDS:
            mine = [(entry, vectors) for entry, vectors in begun if entry.kind == kind]
            if mine:
                store = self.store(kind)
                store.add([name for entry, _ in mine for name in entry.ids], np.concatenate([one for _, one in mine]))
                store.flush()
        with self.catalogue.change():
            self.catalogue.know(entries)
            self.catalogue.see(entry.number for entry in entries)

    def flush(self) -> None:
        """Commit; forget what is gone; bring the engines up to the vectors; write small segments together."""
        self._check_writing()
        self.commit()
        self._sweep()
        for kind in KINDS:
            if (self.folder / "vectors" / kind).is_dir():
                store = self.store(kind)
                self._feed(kind, store)
                if store.compact_if_due():
                    self._fed(kind, store)
        with self.catalogue.change():
            self.catalogue.told()

    def close(self, flush: bool = True) -> None:
        """Write what was added. Without `flush`, as after an error, engines are left as they are, behind."""
        try:
            if self.write and flush:
                self.flush()
            elif self.write:
                self.commit()
        finally:
            for one in (*self._engines.values(), *self._stores.values()):
                one.close()
            self._engines, self._stores = {}, {}
            self._stack.close()

    def _check_writing(self) -> None:
        if not self.write:
            raise ValueError(f"{self.folder} was opened to be read: open it with write=True")

    def _sweep(self) -> None:
        """Forget the vectors of what is gone, and of what somebody who was killed had begun."""
        gone = self.catalogue.leftovers()
        for kind in {entry.kind for entry in gone} if self.about["width"] else ():
            self.store(kind).delete([name for entry in gone if entry.kind == kind for name in entry.ids])
            self.store(kind).flush()
        with self.catalogue.change():
            self.catalogue.forget(gone)

    def store(self, kind: str) -> ExactEngine:
        """The vectors of a kind."""
        if kind not in self._stores:
            self._stores[kind] = ExactEngine(
                self.folder / "vectors" / kind,
                self.about["width"],
                dtype=self.about["dtype"],
                read_only=not self.write,
            )
        return self._stores[kind]

    def engine(self, kind: str) -> Engine:
        """What searches the vectors of a kind; the exact engine where another is behind."""
        store = self.store(kind)
        if self.about["engine"] == "exact":
            return store
        if kind not in self._engines:
            engine = self._engine_if_fed(kind, store)
            self._engines[kind] = store if engine is None else engine  # an empty one is false
            if engine is None:
                logger.warning(
                    "the engine %s of %s is behind its vectors, and all of them are compared instead: the next "
                    "`unibrivl index` brings it up to them",
                    self.about["engine"],
                    self.folder,
                )
        return self._engines[kind]

    def _engine_if_fed(self, kind: str, store: ExactEngine) -> Engine | None:
        if self._stamp(kind) != store.stamp():
            return None
        engine = engine_of(self.folder, self.about, kind, len(store))
        if len(engine) == len(store):
            return engine
        engine.close()  # another server than the one that was fed, or somebody has been at it
        return None

    def _stamp(self, kind: str) -> str:
        """Up to which state of the vectors the engine was fed."""
        path = self.folder / "engines" / f"{self.about['engine']}-{kind}.json"
        return json.loads(path.read_text(encoding="ascii"))["fed"] if path.exists() else ""

    def _fed(self, kind: str, store: ExactEngine) -> None:
        if self.about["engine"] != "exact":
            with written_whole(self.folder / "engines" / f"{self.about['engine']}-{kind}.json") as partial:
                partial.write_text(json.dumps({"fed": store.stamp()}) + "\n", encoding="ascii")

    def _feed(self, kind: str, store: ExactEngine) -> None:
        """Give the engine what it has not been given; all of it where that cannot be told."""
        name, fed = self.about["engine"], self._stamp(kind)
        if name == "exact" or (fed == store.stamp() and not is_server(name)):
            return
        if kind not in self._engines:
            self._engines[kind] = engine_of(self.folder, self.about, kind, len(store))
        engine = self._engines[kind]
        if fed == store.stamp() and len(engine) == len(store):
            return
        engine.delete(self.catalogue.untold())
        since = fed if len(engine) else ""
        if getattr(engine, "is_stale", False):
            engine.clear()
            since = ""
        for ids, vectors_NE in store.items(since):
            engine.add(ids, vectors_NE)
        if len(engine) != len(store):  # of a server that was fed something else
            engine.clear()
            for ids, vectors_NE in store.items():
                engine.add(ids, vectors_NE)
        engine.flush()
        self._fed(kind, store)

    def search(self, query: Any, *, top: int = 10, kind: str | None = None) -> list[Hit]:
        """The files that fit best, best first; of a sound with windows the best of them.

        Args:
            query: a `Query`, Embeddings with one row, or a vector (E,).
            top (`int`): how many.
            kind (`str`, *optional*): "audio", "image" or "text" only. Cosines of two kinds are seldom on one scale.
        """
        if top < 1:
            raise ValueError(f"top must be at least 1, got {top}")
        if kind is not None and kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {kind!r}")
        query = Query.of(query)
        self.check_model(query.fingerprint)
        if self._waiting:
            self.commit()
        hits = [hit for one in self.kinds() if kind in (None, one) for hit in self._search(query, top, one)]
        return sorted(hits, key=lambda hit: -hit.score)[:top]

    def _search(self, query: Query, top: int, kind: str) -> list[Hit]:
        store, vector_E = self.store(kind), query.vector(kind)
        engine = store if self.write else self.engine(kind)  # a writer's engine is fed when it flushes
        estimates, asked = getattr(engine, "is_approximate", False), MORE * top
        while True:
            (names,), cosines = engine.search(vector_E[None], asked * getattr(engine, "candidates", 1))
            got, scores = len(names), cosines[0]
            if engine is not store:  # a server may be told of vectors that were not there when this was opened
                places = [place for place, name in enumerate(names) if name in store]
                names, scores = [names[place] for place in places], scores[places]
            if estimates:
                scores = store.vectors(names) @ vector_E
            ranked = sorted(zip(scores.tolist(), names, strict=True), key=lambda one: -one[0])
            found = self.catalogue.numbered(list({int(name.split(".")[0]) for name in names}))
            best: dict[int, tuple[float, str]] = {}
            for score, name in ranked:
                number = int(name.split(".")[0])
                if number in found:
                    best.setdefault(number, (score, name))
            if len(best) >= top or got < asked:
                break
            asked *= MORE
        chosen = list(best.items())[:top]
        vectors_NE = store.vectors([name for _, (_, name) in chosen])
        hits = []
        for (number, (score, name)), found_E in zip(chosen, vectors_NE, strict=True):
            begin_s, end_s = self.catalogue.times(number, int(name.split(".")[1])) or (None, None)
            hits.append(Hit(found[number].path, kind, score, begin_s, end_s, query.why(kind, found_E)))
        return hits


def read_about(folder: Path) -> dict[str, Any]:
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["format"] > FORMAT:
            raise ValueError(f"it has format {about['format']} and this version reads up to {FORMAT}: update unibrivl")
        if not isinstance(about["engine"], str) or not isinstance(about["engine_options"], dict):
            raise ValueError("an engine has a name, and options with names")
        return {**about, "fingerprint": str(about["fingerprint"])}
    except FileNotFoundError as error:
        raise ValueError(f"{folder} holds no index: `unibrivl index PATH... --out {folder}` makes one") from error
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / ABOUT} is not of ours, or is damaged: {error}") from error


def write_about(folder: Path, about: Mapping[str, Any]) -> None:
    with written_whole(folder / ABOUT) as partial:
        partial.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def engine_of(folder: Path, about: Mapping[str, Any], kind: str, expected: int) -> Engine:
    """The engine of this index for vectors of a kind, each kind in a place of its own."""
    name, made_in = about["engine"], folder / "engines" / about["engine"] / kind
    check_for_index(name, about["engine_options"])
    options = {
        option: value.replace("{kind}", kind) if isinstance(value, str) else value
        for option, value in about["engine_options"].items()
    }
    known = known_options(name)
    if "expected" in known:
        options.setdefault("expected", expected)
    if "fingerprint" in known:
        options["fingerprint"] = about["fingerprint"]
    made_in.mkdir(parents=True, exist_ok=True)
    return open_engine(name, made_in, about["width"], **options)


def change_engine(folder: str | Path, engine: str, engine_options: Mapping[str, Any] | None = None) -> None:
    """Another engine for an index that is there, made from its vectors; what the one before made is removed.

    Until the new one is made the index stays with the one it has.
    """
    folder, options = Path(folder), dict(engine_options or {})
    check_for_index(engine, options)
    before = read_about(folder)
    with Index(folder, {**before, "engine": engine, "engine_options": options}, write=True) as index:
        # of the same engine with other options: both would lie in one place
        remove_engine(folder, before if before["engine"] == engine else index.about)
        index.flush()
        write_about(folder, index.about)
        if before["engine"] != engine:
            remove_engine(folder, before)


def remove_engine(folder: Path, about: Mapping[str, Any]) -> None:
    """What an engine made of the vectors: its files, and its tables on a server, where that can be reached."""
    name, made_in = about["engine"], folder / "engines"
    try:
        for kind in KINDS if is_server(name) else ():
            if (made_in / name / kind).is_dir():
                engine: Any = engine_of(folder, about, kind, 0)
                with closing(engine):
                    engine.drop()
    except (ValueError, OSError, ImportError) as error:
        logger.warning("what the engine %s keeps of %s elsewhere stays there: %s", name, folder, error)
    for kind in KINDS:
        shutil.rmtree(made_in / name / kind, ignore_errors=True)
        (made_in / f"{name}-{kind}.json").unlink(missing_ok=True)


def remove(folder: str | Path) -> None:
    """Remove what an index wrote, and nothing else."""
    folder = Path(folder)
    about = read_about(folder)
    with locked(folder):
        remove_engine(folder, about)
        (folder / ABOUT).unlink()  # first: without it there is no index
        for name in (CATALOGUE, f"{CATALOGUE}-journal", "errors.csv"):
            (folder / name).unlink(missing_ok=True)
        for name in ("vectors", "engines"):
            shutil.rmtree(folder / name, ignore_errors=True)
