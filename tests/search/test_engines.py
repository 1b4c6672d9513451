"""All engines by one protocol: what they find is what a plain product finds, before and after everything one does."""

from __future__ import annotations

import numpy as np
import pytest

from unibrivl.search import ENGINES, open_engine, with_faiss
from unibrivl.search.exact import ExactEngine

WIDTH = 32
MADE = {
    "exact": ("exact", {}),
    "exact in half precision": ("exact", {"dtype": "float16"}),
    "faiss": ("faiss", {}),
    "faiss graph": ("faiss", {"kind": "hnsw"}),
}


def unit(count: int, seed: int = 0, width: int = WIDTH) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def brute(held: dict[str, np.ndarray], queries: np.ndarray, k: int) -> tuple[list[list[str]], np.ndarray]:
    names = list(held)
    cosines = queries @ np.stack([held[name] for name in names]).T
    order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return [[names[column] for column in row] for row in order], np.take_along_axis(cosines, order, 1)


@pytest.fixture(params=sorted(MADE))
def made(request, tmp_path):
    """Opens the same engine again and again."""
    name, options = MADE[request.param]
    if name == "faiss":
        pytest.importorskip("faiss")
    return lambda: open_engine(name, tmp_path / "engine", WIDTH, **options)


def check(engine, held, k: int = 7) -> None:
    queries = unit(5, 99)
    ids, cosines = engine.search(queries, k)
    wanted_ids, wanted = brute(held, queries, k)
    assert len(engine) == len(held)
    assert cosines == pytest.approx(wanted, abs=2e-3)
    assert {name for row in ids for name in row} <= set(held)
    if getattr(engine, "dtype", None) != np.float16:
        assert ids == wanted_ids


def test_what_is_found_is_what_a_product_finds(made):
    """After adding, replacing, deleting, and each of them read again from the disk."""
    engine, held = made(), {}
    for step in range(6):
        names = [f"{step}/{row}" for row in range(40)] + [f"{max(0, step - 1)}/{row}" for row in range(5)] * (step > 0)
        vectors = unit(len(names), step)
        engine.add(names, vectors)
        held |= dict(zip(names, vectors, strict=True))
        gone = [f"{step}/{row}" for row in range(0, 40, 3)] + ["never there"]
        engine.delete(gone)
        for name in gone:
            held.pop(name, None)
        check(engine, held)
        if step % 2:
            engine.flush()
            engine.close()
            engine = made()
            check(engine, held)
    engine.delete(list(held)[:-3])
    held = dict(list(held.items())[-3:])
    check(engine, held)
    engine.close()
    engine = made()
    check(engine, held)
    engine.delete(list(held))
    assert engine.search(unit(2), 3)[0] == [[], []]


def test_what_was_found_and_deleted_is_not_there(made):
    engine = made()
    engine.add(["1", "2"], unit(2))
    assert "1" in engine
    (found,), _ = engine.search(unit(1), 2)
    engine.delete(["1"])
    assert found == ["1", "2"] and "1" not in engine and "2" in engine and len(engine) == 1
    engine.add(["1"], unit(1, 5))
    assert "1" in engine and len(engine) == 2


def test_an_empty_engine_finds_nothing(made):
    engine = made()
    ids, cosines = engine.search(unit(2), 3)
    assert (len(engine), ids, cosines.shape) == (0, [[], []], (2, 0))
    engine.flush()
    engine.close()
    assert len(made()) == 0


def test_questions_that_make_no_sense_are_refused(made, tmp_path):
    engine = made()
    with pytest.raises(ValueError, match="length one"):
        engine.add(["a"], 2 * unit(1))
    with pytest.raises(ValueError, match="length one"):
        engine.add(["a"], np.full((1, WIDTH), np.nan, np.float32))
    with pytest.raises(ValueError, match="2 ids need"):
        engine.add(["a", "b"], unit(1))
    with pytest.raises(ValueError, match="twice"):
        engine.add(["a", "a"], unit(2))
    with pytest.raises(ValueError, match="ids are strings"):
        engine.add([1], unit(1))
    with pytest.raises(ValueError, match="queries must be"):
        engine.search(unit(1, width=8), 1)
    with pytest.raises(ValueError, match="at least 1"):
        engine.search(unit(1), 0)
    with pytest.raises(ValueError, match="length one"):
        engine.search(np.full((1, WIDTH), np.nan, np.float32), 1)
    assert len(engine) == 0


def test_the_table_of_engines(tmp_path):
    assert {"exact", "faiss"} <= set(ENGINES)
    with pytest.raises(ValueError, match="no engine 'none'"):
        open_engine("none", tmp_path, 4)
    with pytest.raises(ValueError, match="no such option.*colour"):
        open_engine("exact", tmp_path, 4, colour="red")


def test_what_was_not_flushed_is_lost_and_nothing_else(tmp_path):
    engine = ExactEngine(tmp_path, WIDTH)
    vectors = unit(30)
    engine.add([str(row) for row in range(20)], vectors[:20])
    engine.flush()
    engine.add([str(row) for row in range(15, 30)], vectors[15:])
    engine.delete(["3"])
    (tmp_path / ".0000-00000001.safetensors.partial").write_bytes(b"half a segment")
    again = ExactEngine(tmp_path, WIDTH)  # as after a kill: the first is simply not asked
    check(again, {str(row): vectors[row] for row in range(20)})
    assert not list(tmp_path.glob(".*"))


def test_compaction_changes_no_answer_and_may_be_killed(tmp_path, monkeypatch):
    engine, vectors = ExactEngine(tmp_path, WIDTH), unit(300)
    for begin in range(0, 300, 50):
        engine.add([str(row) for row in range(begin, begin + 50)], vectors[begin : begin + 50])
        engine.flush()
    engine.delete([str(row) for row in range(0, 300, 2)])
    held = {str(row): vectors[row] for row in range(1, 300, 2)}
    reader, stamp = ExactEngine(tmp_path, WIDTH, read_only=True), engine.stamp()
    assert engine.compact_if_due()
    assert engine.stamp() != stamp
    check(engine, held)
    check(ExactEngine(tmp_path, WIDTH), held)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert len(reader.search(unit(1), 3)[0][0]) == 3  # it reads on in the files that it has open
    with pytest.raises(ValueError, match="opened to be read"):
        reader.add(["a"], unit(1))

    def killed(path):
        raise KeyboardInterrupt

    monkeypatch.setattr("unibrivl.search.exact.written_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        engine.compact()
    monkeypatch.undo()
    check(ExactEngine(tmp_path, WIDTH), held)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_blocks_do_not_change_the_answer(tmp_path, monkeypatch):
    engine, vectors = ExactEngine(tmp_path, WIDTH), unit(101)
    engine.add([str(row) for row in range(101)], vectors)
    whole = engine.search(unit(3, 5), 20)
    monkeypatch.setattr("unibrivl.search.exact.BLOCK_NUMBERS", 7 * WIDTH)
    parts = engine.search(unit(3, 5), 20)
    assert parts[0] == whole[0]
    assert parts[1] == pytest.approx(whole[1], abs=1e-6)
    told = [(name, vector) for names, block in engine.items() for name, vector in zip(names, block, strict=True)]
    assert [name for name, _ in told] == [str(row) for row in range(101)]
    assert np.array_equal([vector for _, vector in told], vectors)


@pytest.mark.parametrize("named", ["{}.{}", "file {} of {}", "{}x{}"])
def test_a_reader_finds_vectors_without_a_map_of_all_ids(named, tmp_path):
    engine, names = ExactEngine(tmp_path, WIDTH), []
    for part in range(4):
        names += [named.format(number, window) for number in range(9 * part, 9 * part + 9) for window in range(12)]
        engine.add(names[-108:], unit(108, part))
        engine.flush()
    engine.delete(names[::5])
    engine.flush()
    living = [name for place, name in enumerate(names) if place % 5]
    reader = ExactEngine(tmp_path, WIDTH, read_only=True)
    assert np.array_equal(reader.vectors(living[::-1]), engine.vectors(living)[::-1])
    assert (reader._rows is None) == (named == "{}.{}")
    for gone in (names[0], "999.1", "1.99"):
        with pytest.raises(KeyError):
            reader.vectors([gone])


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_what_is_deleted_of_a_mapped_file_is_gone_from_the_next(kind, tmp_path):
    pytest.importorskip("faiss")
    vectors = clustered(600)
    for ids, gone in (([str(row) for row in range(600)], []), ([], ["3"]), ([], [])):
        engine = open_engine("faiss", tmp_path, WIDTH, kind=kind)
        if ids:
            engine.add(ids, vectors)
        engine.delete(gone)
        engine.close()
    engine = open_engine("faiss", tmp_path, WIDTH, kind=kind)
    assert len(engine) == 599 and engine.search(vectors[4:5], 1)[0] == [["4"]]
    assert "3" not in engine.search(vectors[3:4], 599)[0][0]


def test_a_damaged_segment_is_named(tmp_path):
    engine = ExactEngine(tmp_path, WIDTH)
    engine.add(["a"], unit(1))
    engine.close()
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="is damaged"):
        ExactEngine(tmp_path, WIDTH)
    with pytest.raises(ValueError, match="numbers, and not of"):
        (tmp_path / "b").mkdir()
        one = ExactEngine(tmp_path / "b", 8)
        one.add(["a"], unit(1, width=8))
        one.close()
        ExactEngine(tmp_path / "b", 16)


def clustered(count: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((40, WIDTH))
    vectors = centres[generator.integers(40, size=count)] + 0.5 * generator.standard_normal((count, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_faiss_grows_from_flat_to_a_graph_to_lists(tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr(with_faiss, "FLAT_BELOW", 400)
    monkeypatch.setattr(with_faiss, "GRAPH_BELOW", 1500)
    vectors, kinds = clustered(3000), []
    exact = ExactEngine(tmp_path / "exact", WIDTH)
    for begin, end in ((0, 300), (300, 1000), (1000, 3000)):
        engine = open_engine("faiss", tmp_path / "faiss", WIDTH)
        names = [str(row) for row in range(begin, end)]
        for one in (engine, exact):
            one.add(names, vectors[begin:end])
            one.flush()
        engine.close()
        engine = open_engine("faiss", tmp_path / "faiss", WIDTH)
        kinds.append(engine.kind)
        found, wanted = (one.search(vectors[:50], 10)[0] for one in (engine, exact))
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, wanted, strict=True)])
        assert recall > {"flat": 0.99, "hnsw": 0.9, "ivf": 0.95}[engine.kind]
    assert kinds == ["flat", "hnsw", "ivf"]
    assert engine.is_approximate and not engine.is_stale
    assert [with_faiss.kind_for(size) for size in (399, 1500, 10**7)] == ["flat", "ivf", "ivfpq"]
    assert len(engine) == 3000
    assert len(list((tmp_path / "faiss").iterdir())) == 3  # vectors, ids, and which of them count


@pytest.mark.parametrize(("kind", "least"), [("ivf", 0.95), ("ivfpq", 0.1)])  # half a byte for 8 numbers
def test_faiss_learns_its_lists_before_everything_has_come(kind, least, tmp_path):
    pytest.importorskip("faiss")
    vectors = clustered(4000)
    engine = open_engine("faiss", tmp_path, WIDTH, kind=kind, expected=400)
    for begin in range(0, 4000, 1000):
        engine.add([str(row) for row in range(begin, begin + 1000)], vectors[begin : begin + 1000])
    assert engine.index is not None
    assert not engine._waiting
    assert len(engine.search(vectors[:2], 4000)[0][1]) == 4000  # all of it can be asked for
    wanted = np.argsort(-(vectors[:50] @ vectors.T), 1)[:, :10].astype(str)
    found = engine.search(vectors[:50], 10)[0]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, wanted, strict=True)]) > least
    assert engine.is_stale  # ten times what its lists were made for
    engine.flush()
    again = open_engine("faiss", tmp_path, WIDTH, kind=kind)
    assert again.search(vectors[:50], 10)[0] == found and again.is_mapped and again._places is None
    again.delete(["7"])
    again.add(["new"], -vectors[:1])
    assert again.search(-vectors[:1], 1)[0] == [["new"]] and len(again) == 4000 and not again.is_mapped
    again.close()
    again = open_engine("faiss", tmp_path, WIDTH, kind=kind)
    assert len(again) == 4000 and "7" not in again and "new" in again
