"""`unibrivl serve`: a server that talks to this machine only, hands out nothing, and says what is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from unibrivl.app.guard import POLICY, Guard, is_loopback
from unibrivl.cli import main, serve


def ask(guard: Guard, path: str = "/", host: str | None = "localhost:7860") -> tuple[int, dict[str, str], bool]:
    """The status and headers a guarded application answers with, and whether it was reached."""
    sent, reached = [], []

    async def app(scope, receive, send):
        reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Referrer-Policy", b"unsafe-url")]})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        sent.append(message)

    guard.app = app
    headers = [] if host is None else [(b"host", host.encode())]
    asyncio.run(guard({"type": "http", "path": path, "headers": headers}, None, send))
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}, bool(reached)


@pytest.mark.parametrize("host", ["localhost:7860", "LOCALHOST", "127.0.0.1:80", "[::1]:7860", "127.1.2.3"])
def test_names_of_this_machine_are_answered(host):
    status, headers, reached = ask(Guard(None), host=host)
    assert status == 200 and reached
    assert headers["content-security-policy"] == POLICY and headers["referrer-policy"] == "no-referrer"
    assert "Referrer-Policy" not in headers


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example:7860", "10.0.0.1", "", "127.0.0.1.nip.io", None]
)
def test_other_names_are_refused_on_loopback_only(host):
    status, _, reached = ask(Guard(None), host=host)
    assert status == 421 and not reached
    assert ask(Guard(None, host="0.0.0.0"), host=host)[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=https://a.example/x",
        "/file=http://a",
        "/gradio_api/file=HTTP%3A//a",
        "/gradio_api/proxy=https://a",
    ],
)
def test_no_address_is_fetched_for_anybody(path):
    status, _, reached = ask(Guard(None), path)
    assert status == 403 and not reached


def test_the_policy_names_no_other_host():
    assert "http" not in POLICY and "*" not in POLICY and "default-src 'self'" in POLICY


def test_loopback_is_what_only_this_machine_reaches():
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.9.9.9")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "example.org", "")))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "70000"], "--port must be from 1 to 65535"),
        (["--max-seconds", "0"], "limit of seconds"),
        (["--queue", "-1"], "limit of queue"),
    ],
)
def test_wrong_questions_are_told_before_a_model_is_loaded(arguments, words, capsys):
    assert main(["serve", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_another_host_is_a_choice_with_a_warning(monkeypatch, capsys):
    pytest.importorskip("gradio", reason="gradio is not installed")
    seen = []
    monkeypatch.setattr(serve, "show", lambda args, limits: seen.append((args.host, limits)) or 0)
    assert main(["serve"]) == 0 and capsys.readouterr().err == ""
    assert main(["serve", "--host", "0.0.0.0", "--max-mb", "3"]) == 0
    assert "no password" in capsys.readouterr().err
    assert [host for host, _ in seen] == ["127.0.0.1", "0.0.0.0"]
    assert [limits.bytes for _, limits in seen] == [20 << 20, 3 << 20]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    pytest.importorskip("diffusers", reason="diffusers is not installed")
    import tiny_page

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_page.pipeline().save_pretrained(folder)
    return str(folder)


def test_a_server_speaks_to_nobody_and_hands_out_no_file(model, tmp_path, monkeypatch, capsys):
    """The whole command, from the model's folder to the last upload; no address but this machine's is looked up."""
    gradio = pytest.importorskip("gradio", reason="gradio is not installed")
    import tiny_archive
    import tiny_page

    from unibrivl.embedder import Embedder

    called, strangers, queues = [], [], []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def watched_connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and not is_loopback(str(address[0])):
            strangers.append(address)
        return connect(self, address)

    def watched_look_up(host, *rest, **how):
        if not is_loopback(host.decode() if isinstance(host, bytes) else str(host)):
            strangers.append(host)
        return look_up(host, *rest, **how)

    queue = gradio.Blocks.queue

    def watched_queue(self, **how):
        queues.append(how.get("max_size"))
        return queue(self, **how)

    monkeypatch.setattr(gradio.Blocks, "queue", watched_queue)
    monkeypatch.setattr(socket.socket, "connect", watched_connect)
    monkeypatch.setattr(socket, "getaddrinfo", watched_look_up)
    monkeypatch.setenv("UNIBRIVL_CACHE", str(tmp_path / "cache"))

    def visit():
        (address,) = [word for word in capsys.readouterr().out.split() if word.startswith("http")]
        with urllib.request.urlopen(address) as reply:
            page = reply.read().decode()
            assert reply.headers["content-security-policy"] == POLICY
        settings = json.loads(page.split("window.gradio_config = ")[1].split(";</script>")[0])
        assert settings["analytics_enabled"] is False and not settings["stylesheets"]
        assert [f">{tab}<" in page or f'"{tab}"' in page for tab in ("Find", "Why", "Say it")] == [True, True, False]
        assert settings["theme"] != "" and "googleapis" not in page and "cdn" not in page.lower()
        with urllib.request.urlopen(f"{address}gradio_api/info") as reply:
            assert json.load(reply) == {"named_endpoints": {}, "unnamed_endpoints": {}}
        for path in ("/etc/hostname", *indexed, "setup.cfg", __file__):
            with pytest.raises(urllib.error.HTTPError, match="403|404"):
                urllib.request.urlopen(f"{address}gradio_api/file={urllib.request.quote(path)}")
        called.append(Path(os.environ["GRADIO_TEMP_DIR"]))
        assert called[0].is_dir()

    monkeypatch.setattr(serve, "wait", visit)
    tiny_page.write_pictures(tmp_path / "pictures")
    pictures, index = str(tmp_path / "pictures"), tmp_path / "index"
    tiny_archive.index_of(tmp_path / "pictures", index, Embedder(tiny_page.pipeline().listener))
    indexed = [str(tmp_path / "pictures" / "picture 0.png"), str(index / "index.json")]
    places = ["--pictures", pictures, "--index", str(index)]
    assert main(["serve", "--model", model, *places, "--device", "cpu", "--queue", "3"]) == 0
    assert called and not called[0].exists() and "GRADIO_TEMP_DIR" not in os.environ
    assert strangers == [] and 3 in queues


def test_one_picture_is_drawn_at_a_time_and_by_the_page_only(model):
    pytest.importorskip("gradio", reason="gradio is not installed")
    import tiny_page

    from unibrivl.app.page import build
    from unibrivl.app.studio import Studio
    from unibrivl.app.uploads import Uploads

    studio = Studio(tiny_page.pipeline())
    page = build(studio, Uploads("uploads"))
    assert [one.name for one in page.fns.values() if one.name.startswith("press")] == ["press"]
    page = build(studio, Uploads("uploads"), tiny_page.workshop(studio))
    drawing = [one for one in page.fns.values() if one.name.startswith("press")]
    assert [one.name for one in drawing] == ["press", "press_edit", "press_style"]
    for one in drawing:  # one after another, whatever the tab
        assert one.concurrency_limit == 1 and one.concurrency_id == "model" and one.api_visibility == "private"
    assert all(one.api_visibility == "private" for one in page.fns.values() if one.targets)


def test_tabs_are_there_where_an_adapter_is(model, tmp_path, monkeypatch, capsys):
    """An adapter beside the model's parts is found; another's is named; one for another base is refused at once."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    import shutil

    import tiny_audio_token
    import tiny_diffusion
    import tiny_page

    from unibrivl.cli.audio_words import with_words

    pipe = tiny_page.pipeline()
    parts = pipe.components
    adapter = tiny_audio_token.adapter_for(parts, parts["matcher"], parts["matcher_processor"])
    adapter.save_pretrained(tmp_path / "adapter")
    for part in (pipe.matcher, pipe.matcher_processor):
        part.save_pretrained(tmp_path / "ears")
    assert with_words(pipe, model, None, None) is None
    words = with_words(pipe, model, str(tmp_path / "adapter"), None)
    assert words.unet is pipe.unet and words.matcher is pipe.matcher  # nothing is loaded twice
    shutil.copytree(model, tmp_path / "model")
    shutil.copytree(tmp_path / "adapter", tmp_path / "model" / "audio_adapter")
    seen = []

    def visit():
        (address,) = [word for word in capsys.readouterr().out.split() if word.startswith("http")]
        with urllib.request.urlopen(address) as reply:
            seen.append("Edit a picture" in reply.read().decode())

    monkeypatch.setattr(serve, "wait", visit)
    for folder in (model, str(tmp_path / "model")):
        assert main(["serve", "--model", folder, "--device", "cpu"]) == 0
    assert seen == [False, True]
    with pytest.raises(ValueError, match="--ears are those of an adapter"):
        with_words(pipe, model, None, str(tmp_path / "ears"))
    with pytest.raises(ValueError, match="and not with --offload"):
        with_words(pipe, model, str(tmp_path / "adapter"), None, offload=True)
    assert with_words(pipe, str(tmp_path / "model"), None, None, offload=True) is None
    other = tiny_diffusion.pipeline(seed=1, reads="native")
    with pytest.raises(ValueError, match="was made for"):
        with_words(other, model, str(tmp_path / "adapter"), None)
