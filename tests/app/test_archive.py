"""An index on the page, without a browser: uploads and words in, what is nearest out, and no file by its path."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
import tarfile
import wave
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("diffusers", reason="diffusers is not installed")

import soundfile
import tiny_archive
import tiny_page
from PIL import Image

from unibrivl.app.archive import Archive, Asked
from unibrivl.app.finding import name_of, thing_of
from unibrivl.app.limits import Limits
from unibrivl.cli import main
from unibrivl.embedded import HERE
from unibrivl.embedder import Embedder, Embeddings, load
from unibrivl.search import Hit, Index

pytestmark = pytest.mark.skipif(
    not (HERE / "open" / "model_index.json").is_file(), reason="the embedded model's weights are not in this checkout"
)


@pytest.fixture(scope="module")
def embedder():
    return load("embedded", window_s=1.0)


@pytest.fixture(scope="module")
def made(embedder, tmp_path_factory):
    """Sounds and pictures, and their index; one sound has its tone in the second of its two windows."""
    folder = tmp_path_factory.mktemp("made")
    files = tiny_archive.write_files(folder / "files")
    noise = np.random.default_rng(0).normal(0, 0.1, tiny_archive.RATE_HZ).astype(np.float32)
    soundfile.write(files / "late.wav", np.concatenate([noise, tiny_archive.tone(1760)]), tiny_archive.RATE_HZ)
    tiny_archive.index_of(files, folder / "index", embedder)
    return folder


@pytest.fixture
def archive(made, embedder, tmp_path):
    """Files of its own, so that a test may break them."""
    shutil.copytree(made / "files", tmp_path / "files")
    tiny_archive.index_of(tmp_path / "files", tmp_path / "index", embedder)
    return Archive(tmp_path / "index", embedder, Limits(megabytes=0.2))


@pytest.fixture(scope="module")
def shared(made, embedder):
    return Archive(made / "index", embedder, Limits(megabytes=0.2))


def last(archive, **asked):
    *_, answer = archive.find(Asked(**asked))
    return answer


def plain(shown: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", shown))


def names(shown: str) -> list[str]:
    return re.findall(r'class="name">([^<]*)<', shown)


def scores(shown: str) -> list[float]:
    return [float(one) for one in re.findall(r'class="score">([^<]*)<', shown)]


def test_what_is_shown_is_what_cosines_say(shared, made, embedder, tmp_path):
    looking, done = shared.find(Asked(tiny_archive.write_sound(tmp_path / "asked.wav", 440), kind="image"))
    assert plain(looking.status).strip() == "Looking ..." and looking.found is None
    paths = [made / "files" / f"{colour}.png" for colour in tiny_archive.COLOURS]
    cosines = embedder.similarity(embedder.encode_audio([tmp_path / "asked.wav"]), embedder.encode_image(paths))[0]
    order = np.argsort(-cosines)
    assert names(done.found) == [f"files/{tiny_archive.COLOURS[place]}.png" for place in order]
    assert scores(done.found) == pytest.approx(cosines[order], abs=6e-4)
    assert f"Done: 3 found. The nearest is {names(done.found)[0]}." in done.status
    assert str(made) not in done.found and "<audio" not in done.found and "together" not in done.found
    sizes = [Image.open(io.BytesIO(base64.b64decode(one))).size for one in content(done.found, "image/jpeg")]
    assert sizes == [(64, 48)] * 3 and done.found.count('alt="Picture, number ') == 3


def content(shown: str, kind: str) -> list[str]:
    return re.findall(rf'src="data:{kind};base64,([^"]*)"', shown)


def test_a_sound_is_found_by_its_best_window_and_can_be_heard(shared, tmp_path):
    done = last(shared, sound=tiny_archive.write_sound(tmp_path / "asked.wav", 1760), kind="audio", most=2.0)
    assert names(done.found)[0] == "files/late.wav" and "1.0 to 2.0 s" in done.found and scores(done.found)[0] > 0.99
    assert 'aria-label="Sound, number 1: files/late.wav, 1.0 to 2.0 s"' in done.found
    assert done.found.count("<audio") == done.found.count("<svg") == 2
    with wave.open(io.BytesIO(base64.b64decode(content(done.found, "audio/wav")[0]))) as played:
        assert played.getnframes() / played.getframerate() == pytest.approx(1.0, abs=0.01)
        samples = np.frombuffer(played.readframes(played.getnframes()), "<i2")
    peak_hz = np.abs(np.fft.rfft(samples)).argmax() * played.getframerate() / len(samples)
    assert peak_hz == pytest.approx(1760, abs=3)


def test_of_a_mixture_it_is_told_how_near_each_part_is(shared, embedder, made, tmp_path):
    sound = tiny_archive.write_sound(tmp_path / "asked.wav", 220)
    picture = tiny_archive.write_picture(tmp_path / "asked.png", "blue")
    done = last(shared, sound=sound, picture=picture, words=" rain ", words_count=-0.5, most=1, kind="image")
    found = made / names(done.found)[0]
    parts = [
        embedder.encode_audio([sound]),
        embedder.encode_image([picture]),
        embedder.encode_text(["rain"], against="image"),
    ]
    wanted = [float(embedder.similarity(part, embedder.encode_image([found]))[0, 0]) for part in parts]
    told = [float(one) for one in re.findall(r"The (?:sound|picture|words) ([+-][0-9.]+)", done.found)]
    assert told == pytest.approx(wanted, abs=6e-4)
    mixed = sum(weight * part.vectors[0] for weight, part in zip((1, 1, -0.5), parts, strict=True))
    together = float(mixed @ embedder.encode_image([found]).vectors[0]) / np.linalg.norm(mixed)
    assert scores(done.found)[0] == pytest.approx(together, abs=6e-4) and " together" in done.found
    assert names(last(shared, picture=picture, most=1, kind="image").found) == ["files/blue.png"]
    assert len(names(last(shared, words="rain").found)) == 7  # all there are, of both kinds


def test_files_that_are_gone_or_broken_are_told_beside_the_rest(archive, tmp_path):
    files = tmp_path / "files"
    (files / "red.png").unlink()
    (files / "green.png").write_bytes(b"this is no picture")
    (files / "220.wav").write_bytes(b"this is no sound " * 40)
    (files / "440.wav").unlink()
    getattr(os, "mkfifo", os.mkdir)(files / "440.wav")  # nobody writes into it: to read it would never end
    done = last(archive, words="rain", most=24)
    told = dict(zip(names(done.found), re.findall(r"<figure>.*?</figure>", done.found), strict=True))
    assert "The file is gone." in told["files/red.png"]
    for name in ("files/green.png", "files/220.wav", "files/440.wav"):
        assert "The file cannot be read." in told[name] and "<audio" not in told[name] and "<img" not in told[name]
    assert "<img" in told["files/blue.png"] and "<audio" in told["files/880.wav"]
    assert "7 found" in done.status and "4 of them cannot be shown: their files are gone or broken." in done.status
    assert str(tmp_path) not in done.found + done.status


def test_what_lies_in_a_shard_is_shown_and_no_url_is_followed(tmp_path, monkeypatch):
    Image.new("RGB", (20, 20), "red").save(tmp_path / "red.png")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(tmp_path / "red.png", "red.png")

    def shown(path):
        return thing_of(Hit(path, "image", 1.0, None, None, ()), [str(tmp_path)])

    (tmp_path / "red.png").unlink()
    thing = shown(f"{tmp_path}/a.tar!/red.png")
    assert thing.name == f"{tmp_path.name}/a.tar!/red.png" and Image.open(io.BytesIO(thing.content)).size == (20, 20)
    assert shown(f"{tmp_path}/a.tar!/blue.png").problem == "The file cannot be read."
    assert shown(f"{tmp_path}/b.tar!/red.png").problem == "The file is gone."
    monkeypatch.setattr("unibrivl.data.places.system_of", lambda url: pytest.fail("a URL was opened"))
    assert shown("http://127.0.0.1:9/red.png").problem == "There is no file of it."


def test_only_paths_of_the_index_are_opened_and_names_are_none(archive, embedder, tmp_path, monkeypatch):
    """Vectors may be added under any name; from the server's own folder it could be a file by chance."""
    tiny_archive.write_picture(tmp_path / "secret.png")
    monkeypatch.chdir(tmp_path)
    vectors = embedder.encode_image([tmp_path / "secret.png"]).vectors
    with Index.open(archive.folder, write=True) as index:
        index.add(Embeddings(vectors, ("secret.png",), "image", embedder.fingerprint))
        index.add(Embeddings(vectors, ("a <b>word</b>",), "text", embedder.fingerprint))
    done = last(archive, picture=tmp_path / "secret.png", most=3)  # opened anew: it sees what was added
    assert "There is no file of it." in done.found and "&ldquo;a &lt;b&gt;word&lt;/b&gt;&rdquo;" in done.found
    assert thing_of(Hit("secret.png", "image", 0.5, None, None, ()), []).content == b""


def test_what_is_wrong_is_a_sentence(shared, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"this is no sound " * 40)
    (tmp_path / "bad.png").write_bytes(b"this is no picture")
    soundfile.write(tmp_path / "still.wav", np.zeros(8000, np.float32), 16000)
    soundfile.write(tmp_path / "long.ogg", tiny_archive.tone(440, 31.0)[::4], 4000)
    tiny_archive.write_sound(tmp_path / "large.wav", seconds=10)
    for asked, words in (
        ({}, "Nothing is asked for yet"), ({"words": "  "}, "Nothing is asked for yet"),
        ({"sound": tmp_path / "bad.wav"}, "bad.wav) cannot be read"),
        ({"picture": tmp_path / "bad.png"}, "bad.png) cannot be read"),
        ({"sound": tmp_path / "still.wav"}, "is silent"), ({"sound": tmp_path / "long.ogg"}, "longer than 30 seconds"),
        ({"sound": tmp_path / "large.wav"}, "larger than 0.2 MB"),
        ({"sound": tmp_path / "gone.wav"}, "no longer here"),
        ({"words": "a" * 301}, "301 letters long"), ({"words": "rain", "most": 25}, "from 1 to 24"),
        ({"words": "rain", "most": 2.5}, "a whole number"),
        ({"words": "rain", "kind": "text"}, "nothing of this kind"),
        ({"words": "rain", "words_count": 3}, "How much the words count must be from -2 to 2"),
        ({"words": "rain", "words_count": float("nan")}, "must be a number"),
        ({"words": "rain", "words_count": 0}, "cancels itself out"),
    ):  # fmt: skip
        answer = last(shared, **asked)
        assert words in answer.status and "Not done" in answer.status and answer.found is None, (asked, answer.status)
        assert str(tmp_path) not in answer.status


def test_an_index_that_goes_or_changes_under_the_page_is_told(archive, embedder, tmp_path):
    other = replace_fingerprint(archive, "0" * 64)
    assert "cannot be searched any more" in last(archive, words="rain").status
    replace_fingerprint(archive, other)
    assert "Done: " in last(archive, words="rain").status
    shutil.rmtree(archive.folder)
    words = last(archive, words="rain").status
    assert "cannot be searched any more" in words and str(tmp_path) not in words


def replace_fingerprint(archive, fingerprint: str) -> str:
    from unibrivl.search.index import read_about, write_about

    about = read_about(archive.folder)
    write_about(archive.folder, {**about, "fingerprint": fingerprint})
    return about["fingerprint"]


def test_an_index_that_cannot_be_used_is_told_before_the_page_opens(embedder, tmp_path, capsys):
    assert main(["serve", "--index", str(tmp_path / "nowhere")]) == 2
    assert "holds no index" in capsys.readouterr().err
    Index.create(tmp_path / "empty", fingerprint=embedder.fingerprint).close()
    with pytest.raises(ValueError, match="holds nothing yet"):
        Archive(tmp_path / "empty", embedder)
    Index.create(tmp_path / "other", fingerprint="0" * 64, model="another").close()
    with pytest.raises(ValueError, match="they cannot be compared"):
        Archive(tmp_path / "other", embedder)


def test_names_say_the_folder_and_no_more():
    assert name_of("/a/b/sounds/deep/x.wav", ["/a/b/sounds", "/a"]) == "sounds/deep/x.wav"
    assert name_of("/elsewhere/x.wav", ["/a/b/sounds"]) == "x.wav"
    assert name_of("/a/b/soundscape/x.wav", ["/a/b/sounds"]) == "x.wav"
    assert name_of("/x.wav", ["/"]) == "x.wav"


def test_long_sounds_are_played_in_part(tmp_path):
    from unibrivl.app.markup_found import listed

    path = str(tiny_archive.write_sound(tmp_path / "long.wav", seconds=32.0))
    whole = thing_of(Hit(path, "audio", 0.5, None, None, ()), [])
    assert whole.played_s == 30 and "whole sound; the first 30 s are played" in listed([whole], False)
    window = thing_of(Hit(path, "audio", 0.5, 30.0, 32.0, ()), [])
    assert window.played_s == 2 and "30.0 to 32.0 s" in listed([window], False)
    assert "are played" not in listed([window], False) and max(window.peaks) == 1
    assert "30.0 to 32.0 s" in listed([replace(window, problem="The file is gone.")], False)


def test_the_page_takes_its_own_model_where_it_is_the_indexs(made, embedder, tmp_path):
    import threading
    from types import SimpleNamespace

    from unibrivl.cli.archive import load_archive

    own, lock = Embedder(embedder.matcher), threading.Lock()
    files = tiny_archive.write_files(tmp_path / "files")
    tiny_archive.index_of(files, tmp_path / "index", own)
    page = SimpleNamespace(listener=own.matcher)
    archive = load_archive(str(tmp_path / "index"), page, Limits(), lock, "cpu")
    assert archive.embedder.matcher is own.matcher and archive.lock is lock and archive.count == 6
    with pytest.raises(ValueError, match="they cannot be compared"):  # the made index has windows it does not tell of
        load_archive(str(made / "index"), page, Limits(), lock, "cpu")
    pipe = tiny_page.pipeline()
    archive = load_archive(str(tmp_path / "index"), pipe, Limits(), lock, "cpu")
    assert archive.embedder.fingerprint == own.fingerprint and archive.embedder.matcher is not own.matcher
    build_and_check(pipe, archive, own)


def build_and_check(pipe, archive, embedder) -> None:
    """Both tabs wait for the model as the others do, and are called by the page only."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    from unibrivl.app.page import build
    from unibrivl.app.studio import Studio
    from unibrivl.app.uploads import Uploads
    from unibrivl.app.witness import Witness

    built = build(Studio(pipe), Uploads("uploads"), archive=archive, witness=Witness(embedder))
    pressed = [one for one in built.fns.values() if one.name.startswith("press")]
    assert [one.name for one in pressed] == ["press", "press_find", "press_why"]
    assert {(one.concurrency_limit, one.concurrency_id) for one in pressed} == {(1, "model")}
    assert all(one.api_visibility == "private" for one in built.fns.values() if one.targets)
