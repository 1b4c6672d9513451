"""The study's server over real HTTP: what it hands out, which answers it takes, and what a kill leaves."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading

import pytest
import tiny_study

from unibrivl.cli import main
from unibrivl.cli import serve as serve_verb
from unibrivl.evaluation.study import Study, build, report, served
from unibrivl.evaluation.study.answers import FIELDS, read_log

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return tiny_study.write_table(tmp_path_factory.mktemp("table"))


@pytest.fixture
def server(table, tmp_path):
    with served(build(table, tmp_path / "study", seed=1)) as server:
        yield server


def ask(server, path, body=None, headers=None, method=None):
    """Status, headers and body of one request; nothing is tidied up on the way, as a browser would."""
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=10)
    method = method or ("GET" if body is None else "POST")
    headers = headers if headers is not None else JSON if body is not None else {}
    body = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
    connection.request(method, path, body, headers)
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return reply.status, dict(reply.headers), content


def first(server, who=None, place=0):
    """A right answer to one of somebody's trials."""
    who = who or tiny_study.participant(0)
    return tiny_study.given(server.study, who, server.study.session(who)[place].trial, "left")


def test_the_files_of_the_study_are_served_and_no_others(server):
    public = server.study.folder / "public"
    for path in public.rglob("*.*"):
        status, headers, content = ask(server, f"/{path.relative_to(public).as_posix()}")
        assert status == 200 and content == path.read_bytes()
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self';")
        assert headers["X-Content-Type-Options"] == "nosniff" and "Last-Modified" not in headers
    assert ask(server, "/")[2] == (public / "index.html").read_bytes()
    assert ask(server, "/", method="HEAD")[2] == b""
    (public / "media" / "late.png").write_bytes(b"x")
    for path in (
        *("/../private/key.json", "/media/../../private/key.json", "/private/key.json", "/media/late.png", "/media"),
        *("/%2e%2e/private/key.json", "/..%2fprivate%2fkey.json", "//etc/passwd", "/media/", "/answers.jsonl", "/nul"),
        *("/..\\private\\key.json", "/media/%00", "/answer", "*", "http://localhost/private/key.json"),
    ):
        status, _, content = ask(server, path)
        assert status == 404 and b"seed" not in content, path


def test_a_session_is_trials_in_order_and_nothing_more(server):
    who = tiny_study.participant(5)
    status, headers, content = ask(server, f"/session?participant={who}")
    told = json.loads(content)
    assert status == 200 and headers["Cache-Control"] == "no-store" and told["answered"] == []
    assert [one["trial"] for one in told["trials"]] == [one.trial for one in server.study.session(who)]
    assert all(set(one) == {"trial", "sound", "left", "right"} for one in told["trials"])
    for bad in ("", "?participant=", "?participant=1", f"?participant={who}&participant={who}", "?participant=../x"):
        assert ask(server, f"/session{bad}")[0] == 400


def test_an_answer_is_kept_with_what_stood_where(server):
    answer = first(server)
    status, _, content = ask(server, "/answer", answer)
    assert (status, json.loads(content)) == (200, {"answered": 1})  # not whether it was right
    (line,) = tiny_study.lines(server.study)
    shown = server.study.session(answer["participant"])[0]
    assert tuple(line) == FIELDS and {key: line[key] for key in answer} == answer
    assert (line["left_id"], line["right_id"]) == (shown.left, shown.right)
    right = shown.left == server.study.trials[shown.trial]["positive"]
    assert line["positive_side"] == ("left" if right else "right")


def test_a_second_answer_to_a_trial_is_refused(server):
    assert ask(server, "/answer", first(server))[0] == 200
    assert ask(server, "/answer", {**first(server), "choice": "right"})[0] == 409
    assert ask(server, "/answer", first(server, place=1))[0] == 200
    assert ask(server, "/answer", first(server, tiny_study.participant(1)))[0] == 200
    told = json.loads(ask(server, f"/session?participant={tiny_study.participant(0)}")[2])
    assert len(told["answered"]) == 2 and len(tiny_study.lines(server.study)) == 3


def test_of_many_at_once_one_counts(server):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(ask(server, "/answer", first(server))[0])) for _ in range(8)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(found) == [200] + [409] * 7 and len(tiny_study.lines(server.study)) == 1


BAD = (
    ({"study_id": "0" * 16}, 410),
    ({"participant": "somebody"}, 400),
    ({"participant": "00000000-0000-4000-8000-00000000000A"}, 400),
    ({"participant": "00000000-0000-1000-8000-000000000000"}, 400),
    ({"participant": None}, 400),
    ({"trial_id": "0" * 16}, 404),
    ({"trial_id": ["x"]}, 404),
    ({"choice": "positive"}, 400),
    ({"choice": ["left"]}, 400),
    ({"rt_ms": -1}, 400),
    ({"rt_ms": 1.5}, 400),
    ({"rt_ms": True}, 400),
    ({"rt_ms": 10**9}, 400),
    ({"audio_played": False}, 400),
    ({"audio_played": 1}, 400),
    ({"positive_side": "left"}, 400),
    ({"ts": "2020-01-01"}, 400),
)


def test_answers_that_are_none_are_refused(server):
    for change, status in BAD:
        assert ask(server, "/answer", {**first(server), **change})[0] == status, change
    assert not server.study.answers_path.read_bytes()


def test_requests_that_are_no_answers_are_refused(server):
    text = json.dumps(first(server))
    assert ask(server, "/answer", text, {"Content-Type": "text/plain"})[0] == 415  # what a stranger's form can send
    assert ask(server, "/answer", text, {**JSON, "Origin": "https://evil.example"})[0] == 403
    assert ask(server, "/answer", text, {**JSON, "Origin": "null"})[0] == 403
    assert ask(server, "/answer", text + " " * 5000)[0] == 413
    assert ask(server, "/answer", text, {**JSON, "Content-Length": "9" * 5000})[0] == 413
    assert ask(server, "/answer", text, {**JSON, "Content-Length": "-1"})[0] == 411
    assert ask(server, "/answer", None, {**JSON, "Transfer-Encoding": "chunked"}, "POST")[0] == 411
    for bad in (b"", b"[]", b"{", b"\xff", b"[" * 4000, b"null", text[:-1].encode() + b', "more": 1}'):
        assert ask(server, "/answer", bad)[0] == 400, bad
    assert ask(server, "/trials.json", text)[0] == 404
    assert ask(server, "/answer", text, method="PUT")[0] == 501
    assert not server.study.answers_path.read_bytes()
    origin = server.address
    assert ask(server, "/answer", text, {**JSON, "Origin": origin})[0] == 200  # the page itself


def test_other_names_for_this_machine_are_refused(server):
    for host in ("evil.example", "127.0.0.1.nip.io", "10.0.0.1", ""):
        for path in ("/", "/trials.json", f"/session?participant={tiny_study.participant(0)}"):
            assert ask(server, path, headers={"Host": host})[0] == 421
        assert ask(server, "/answer", first(server), {**JSON, "Host": host})[0] == 421
    assert ask(server, "/", headers={"Host": "localhost:1"})[0] == 200


def test_a_log_goes_on_where_a_kill_tore_it(table, tmp_path):
    """The real command, killed without warning; then a line cut in its middle, and another start."""
    study = Study(build(table, tmp_path / "study", seed=1))
    command = [sys.executable, "-m", "unibrivl", "study", "serve", str(study.folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            told = process.stdout.readline() + process.stdout.readline()
            port = int(re.search(r"open http://127\.0\.0\.1:(\d+) ", told)[1])
            for place in range(3):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                body = json.dumps(tiny_study.given(study, *who_and_trial(study, place), "left"))
                connection.request("POST", "/answer", body, JSON)
                assert connection.getresponse().status == 200
                connection.close()
        finally:
            os.kill(process.pid, signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
    assert len(tiny_study.lines(study)) == 3
    whole = study.answers_path.read_bytes()
    study.answers_path.write_bytes(whole[:-30])
    with served(study.folder) as server:
        assert server.answers.broken == [3]
        told = json.loads(ask(server, f"/session?participant={tiny_study.participant(0)}")[2])
        assert len(told["answered"]) == 2
        for place in (2, 3):  # the torn one is asked again
            assert ask(server, "/answer", first(server, place=place))[0] == 200
    assert study.answers_path.read_bytes().startswith(whole[:-30] + b"\n")  # only ever added to
    log = read_log(study.answers_path)
    assert len(log.answers) == 4 and log.broken == [3]
    assert report(study.folder).told["log"]["broken_lines"] == [3]


def who_and_trial(study, place):
    who = tiny_study.participant(0)
    return who, study.session(who)[place].trial


def test_a_whole_line_without_its_end_counts(table, tmp_path):
    study = Study(build(table, tmp_path / "study", seed=1))
    tiny_study.answer_all(study, tiny_study.participant(0), lambda trial, one: "positive")
    study.answers_path.write_bytes(study.answers_path.read_bytes().rstrip(b"\n"))
    with served(study.folder) as server:
        assert ask(server, "/answer", first(server, place=14))[0] == 409
        assert ask(server, "/answer", first(server, tiny_study.participant(1)))[0] == 200
    assert len(tiny_study.lines(study)) == 16 and not read_log(study.answers_path).broken


def test_a_full_disk_is_told_and_the_answer_can_be_sent_again(server):
    class Full:
        def write(self, line):
            return whole.write(line[:20])

        def fileno(self):
            return whole.fileno()

    whole, server.answers.file = server.answers.file, Full()
    assert ask(server, "/answer", first(server))[0] == 507
    server.answers.file = whole
    assert ask(server, "/answer", first(server))[0] == 200
    log = read_log(server.study.answers_path)
    assert len(log.answers) == 1 and log.broken == [1]


def test_what_cannot_be_served_is_said(table, tmp_path, capsys):
    folder = build(table, tmp_path / "study", seed=1)
    assert main(["study", "serve", str(folder), "--port", "70000"]) == 2
    assert "--port must be" in capsys.readouterr().err
    with served(folder) as server:
        assert main(["study", "serve", str(folder), "--port", str(server.server_address[1])]) == 2
    assert "in use" in capsys.readouterr().err.lower()
    next((folder / "public" / "media").iterdir()).unlink()
    assert main(["study", "serve", str(folder)]) == 2
    assert "1 files of the study are not there" in capsys.readouterr().err
    other = build(table, tmp_path / "other")
    (other / "private" / "key.json").replace(folder / "private" / "key.json")
    assert main(["study", "serve", str(folder)]) == 2
    assert "mixes two studies" in capsys.readouterr().err


def test_another_address_is_warned_of(table, tmp_path, capsys, monkeypatch):
    folder = build(table, tmp_path / "study", seed=1)
    monkeypatch.setattr(serve_verb, "wait", lambda: None)
    assert main(["study", "serve", str(folder), "--host", "0.0.0.0", "--port", "0"]) == 0
    assert "no password" in capsys.readouterr().err
    assert main(["study", "serve", str(folder), "--port", "0"]) == 0
    told = capsys.readouterr()
    assert "open http://127.0.0.1:" in told.out and not told.err
