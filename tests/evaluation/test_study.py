"""The human study without its page: which pictures meet, a folder that gives nothing away, and the count."""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest
import soundfile
import tiny_study
from PIL import Image

from unibrivl.cli import main
from unibrivl.evaluation.reported import REPORTED
from unibrivl.evaluation.study import PRESETS, Study, build, report, summarize
from unibrivl.evaluation.study.pairing import by_class, by_system
from unibrivl.evaluation.study.pairs import Pair

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "evaluation.json").read_text())["human_study"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return tiny_study.write_table(tmp_path_factory.mktemp("table"))


@pytest.fixture
def study(table, tmp_path):
    return Study(build(table, tmp_path / "study", seed=1))


def pairs(**counts: int) -> list[Pair]:
    return [Pair(f"{k}{n}.wav", f"{k}{n}.png", "ours", k) for k, count in counts.items() for n in range(count)]


@pytest.mark.parametrize("counts", [{"dog": 3, "rain": 3}, {"dog": 2, "rain": 1, "bell": 1}, {"a": 5, "b": 4, "c": 2}])
@pytest.mark.parametrize("seed", range(4))
def test_each_picture_is_as_often_the_other_one_as_its_own(counts, seed):
    duels = by_class(pairs(**counts), random.Random(seed))
    assert all(duel.label != duel.opponent for duel in duels)
    assert Counter(duel.positive for duel in duels) == Counter(duel.negative for duel in duels)
    assert set(Counter(duel.positive for duel in duels).values()) == {1}


def test_a_class_with_most_of_the_rows_meets_the_others_evenly():
    duels = by_class(pairs(dog=7, rain=2), random.Random(0))
    assert len(duels) == 9 and all(duel.label != duel.opponent for duel in duels)
    seen = Counter(duel.negative for duel in duels if duel.opponent == "rain")
    assert sorted(seen.values()) == [3, 4]


def test_classes_are_compared_as_words_and_systems_stay_apart():
    with pytest.raises(ValueError, match="'ours' have the label 'Dog'.*two at least"):
        by_class([Pair("a.wav", "a.png", "ours", "Dog"), Pair("b.wav", "b.png", "ours", "dog ")], random.Random(0))
    rows = [Pair(f"{k}.wav", f"{k}-{s}.png", s, k, t) for k in "ab" for s in ("x", "y") for t in ("1", "2")]
    for duel in by_class(rows, random.Random(0)):
        assert duel.positive.endswith(f"{duel.system}.png") and duel.negative.endswith(f"{duel.system}.png")


def test_two_systems_meet_over_one_sound():
    rows = [Pair(f"{n}.wav", f"{n}-{s}.png", s) for s in ("AAI", "other", "third") for n in range(2)]
    duels = by_system(rows, random.Random(0))
    assert Counter(duel.system for duel in duels) == {
        "AAI against other": 2, "AAI against third": 2, "other against third": 2,
    }  # fmt: skip
    assert all(Path(duel.positive).stem.split("-")[0] == Path(duel.negative).stem.split("-")[0] for duel in duels)
    with pytest.raises(ValueError, match="the only system is 'AAI'"):
        by_system(rows[:2], random.Random(0))
    with pytest.raises(ValueError, match="no sound has pictures of two systems"):
        by_system([rows[0], rows[3]], random.Random(0))
    with pytest.raises(ValueError, match="'AAI' has two pictures"):
        by_system([rows[0], rows[0], rows[2]], random.Random(0))


def test_what_the_page_may_know_gives_nothing_away(study, table):
    public = study.folder / "public"
    words = (public / "trials.json").read_text()
    names = [path.name for path in table.parent.iterdir()]
    for secret in (*tiny_study.CLASSES, "ours", "theirs", "photo", "positive", "noise", "check", "seed", *names):
        assert secret not in words, secret
    assert sorted(path.name for path in public.iterdir()) == [
        "index.html", "media", "page.css", "page.js", "trials.json",
    ]  # fmt: skip
    for name in ("index.html", "page.css", "page.js"):  # the same for every study
        assert (public / name).read_bytes() == files("unibrivl.evaluation.study").joinpath(name).read_bytes()
    told = json.loads((public / "trials.json").read_text())
    assert set(told["trials"][0]) == {"trial", "sound", "images"}
    assert [one["trial"] for one in told["trials"]] == sorted(study.trials)
    assert all(one["images"] == sorted(one["images"]) for one in told["trials"])
    on_the_left = [one["images"][0] == study.trials[one["trial"]]["positive"] for one in told["trials"]]
    assert 0 < sum(on_the_left) < len(on_the_left)
    for path in (public / "media").iterdir():
        assert tiny_study.SECRET.encode() not in path.read_bytes()
        if path.suffix == ".png":
            assert not Image.open(path).info
    assert {path.name for path in (public / "media").iterdir()} == study.media
    assert sorted(path.name for path in study.folder.iterdir()) == ["private", "public"]


def test_media_are_the_files_of_the_table(study):
    for one in study.trials.values():
        sound, positive, negative = one["files"]
        media = study.folder / "public" / "media"
        assert Image.open(media / one["positive"]).tobytes() == Image.open(positive).tobytes()
        ours, rate = soundfile.read(media / one["sound"], dtype="int16")
        theirs, rate_before = soundfile.read(sound, dtype="int16")
        assert rate == rate_before and abs(ours.astype(int) - theirs).max() <= 1
        if one["check"]:
            noise = Image.open(media / one["negative"])
            reds, greens, blues = noise.split()
            assert noise.size == (48, 48) and reds.tobytes() == greens.tobytes() == blues.tobytes()
            assert len(set(reds.tobytes())) > 100 and not negative
        else:
            assert Image.open(media / one["negative"]).tobytes() == Image.open(negative).tobytes()


def test_names_are_random_and_the_rest_follows_the_seed(table, tmp_path):
    one, other = (Study(build(table, tmp_path / name, seed=7)) for name in "ab")
    assert not one.media & other.media and one.study_id != other.study_id

    def meetings(study):
        return sorted(value["files"] for value in study.trials.values())

    assert meetings(one) == meetings(other) != meetings(Study(build(table, tmp_path / "c", seed=8)))
    drawn = Study(build(table, tmp_path / "d"))
    assert drawn.key["seed"] > 10**6  # written down


def test_sides_and_order_are_each_participants_own_and_stay(study):
    first, second = (study.session(tiny_study.participant(n)) for n in (1, 2))
    assert first == study.session(tiny_study.participant(1)) == Study(study.folder).session(tiny_study.participant(1))
    assert [one.trial for one in first] != [one.trial for one in second]
    assert sorted(one.trial for one in first) == sorted(one.trial for one in second) == sorted(study.trials)
    left = 0
    for number in range(60):
        for one in study.session(tiny_study.participant(number)):
            assert sorted([one.left, one.right]) == sorted(
                study.trials[one.trial][k] for k in ("positive", "negative")
            )
            left += one.left == study.trials[one.trial]["positive"]
    assert abs(left / (60 * 15) - 0.5) < 0.06  # 3.5 standard deviations


def test_participants_may_get_a_part_and_every_check(table, tmp_path):
    study = Study(build(table, tmp_path / "study", trials_each=4, num_checks=2))
    sessions = [{one.trial for one in study.session(tiny_study.participant(n))} for n in range(20)]
    assert all(len(one) == 6 == study.told["num_trials"] and study.checks <= one for one in sessions)
    assert set().union(*sessions) == set(study.trials)


def test_bad_tables_are_refused_and_leave_nothing(table, tmp_path):
    out = tmp_path / "study"

    def refused(text: str, words: str, **options) -> None:
        (table.parent / "bad.csv").write_text(text)
        with pytest.raises(ValueError, match=words):
            build(table.parent / "bad.csv", out, **options)
        assert not list(tmp_path.iterdir())

    row = "dog0.wav,dog0-ours.png,dog,ours\n"
    head = "sound,image,label,system\n"
    refused("sound,image,labels,system\n" + row, "Rename 'labels' to 'label'")
    refused(head, "has no rows")
    refused(head + "dog0.wav,dog0-ours.png,,ours\n", "row 1: label is empty")
    refused(head + row + "dog9.wav,dog0-ours.png,dog,ours\n", "1 files.*dog9.wav")
    refused(head + row + "rain0.wav,rain0-ours.png,rain,ours\n", "3 attention checks.*'photo'.*--checks 0")
    refused(head + row.replace("ours\n", "photo\n"), "makes checks only", num_checks=0)
    refused(head + row, "no preset 'brewclip'", preset="brewclip")
    refused(head + row, "is empty", consent=[" "])
    refused(head + row, "-1 checks", num_checks=-1)
    (table.parent / "broken.png").write_bytes(b"no picture")
    refused(head + row + "rain0.wav,broken.png,rain,ours\n", "broken.png is not a readable picture", num_checks=0)
    build(table, out, num_checks=0)
    with pytest.raises(ValueError, match="is there already"):
        build(table, out)


def test_the_golden():
    expected = GOLDEN["expected"]
    found = summarize(GOLDEN["input"]["answers"])
    assert found["n"] == expected["n"] and found["counts"] == expected["counts"]
    assert found["percent"] == pytest.approx(expected["percent"])
    assert found["positive_wilson95"] == pytest.approx(expected["positive_wilson95"], abs=1e-9)
    p = found["binom_p_two_sided_positive_vs_negative"]
    assert p == pytest.approx(expected["binom_p_two_sided_positive_vs_negative"], abs=1e-9) and p > 0


def test_the_golden_comes_out_of_a_log(table, tmp_path):
    """The same answers, given by people to trials, on whichever side each picture stood."""
    study = Study(build(table, tmp_path / "study", num_checks=0))
    kinds = iter(GOLDEN["input"]["answers"])
    log = tiny_study.AnswerFile(study)
    for number in range(9):
        who = tiny_study.participant(number)
        for one, kind in zip(study.session(who), kinds, strict=False):
            log.add(tiny_study.given(study, who, one.trial, tiny_study.side(study, who, one.trial, kind)))
    log.close()
    found = report(study.folder)
    assert summarize(one.kind for one in found.answers) == summarize(GOLDEN["input"]["answers"])
    counts = Counter()
    for row in found.told["results"]:
        counts.update(row["counts"])
    assert counts == GOLDEN["expected"]["counts"]


def test_nobody_decided_is_no_test():
    found = summarize(["neither"] * 3)
    assert found["binom_p_two_sided_positive_vs_negative"] is None and found["positive_wilson95"][0] == 0
    with pytest.raises(ValueError, match="no answers to count"):
        summarize([])
    with pytest.raises(ValueError, match="'left'"):
        summarize(["left"])


def test_who_fails_a_check_is_left_out_and_counted(study):
    with pytest.raises(ValueError, match="no answers yet"):
        report(study.folder)
    for number in range(3):
        tiny_study.answer_all(study, tiny_study.participant(number), lambda trial, one: "positive")
    one_check = min(study.checks)
    tiny_study.answer_all(
        study, tiny_study.participant(9), lambda trial, one: "neither" if trial == one_check else "negative"
    )
    early = tiny_study.participant(10)
    trial = next(one.trial for one in study.session(early) if one.trial not in study.checks)
    log = tiny_study.AnswerFile(study)
    log.add(tiny_study.given(study, early, trial, "neither"))
    log.close()
    found = report(study.folder)
    assert found.told["participants"] == {
        "answered": 5, "finished": 4, "excluded": 1, "kept": 4, "kept_without_a_check": 1,
    }  # fmt: skip
    assert found.told["log"]["answers_left_out"] == len(study.trials)
    assert sum(row["counts"]["negative"] for row in found.told["results"]) == 0
    assert sum(row["n"] for row in found.told["results"]) == 3 * 12 + 1
    assert "1 failed a check and are left out with their 15 answers" in found.markdown()
    assert "1 of those who count met no check" in found.markdown()


def test_agreement_of_those_who_judged_the_same(study):
    from unibrivl.metrics import fleiss_kappa

    def whim(trial: str, one: dict) -> str:
        return "positive" if one["check"] or int(trial, 16) % 3 else "negative"

    for number in range(3):
        tiny_study.answer_all(study, tiny_study.participant(number), whim)
    for row in report(study.folder).told["results"]:
        sure = {"value": 1.0, "trials": 6, "answers_each": 3}
        assert row["kappa"] == (sure if row["counts"]["negative"] else {**sure, "value": None})
    tiny_study.answer_all(study, tiny_study.participant(3), lambda trial, one: "positive")
    for row in report(study.folder).told["results"]:
        apart = row["counts"]["negative"] // 3
        counts = [[1, 3, 0]] * apart + [[4, 0, 0]] * (6 - apart)
        assert row["kappa"]["value"] == (None if not apart else pytest.approx(fleiss_kappa(counts)))
    log = tiny_study.AnswerFile(study)  # a fifth person who stops after one: four answers for each are most
    who = tiny_study.participant(4)
    trial = next(one.trial for one in study.session(who) if one.trial not in study.checks)
    log.add(tiny_study.given(study, who, trial, "neither"))
    log.close()
    assert {row["kappa"]["answers_each"] for row in report(study.folder).told["results"]} == {4}


def test_tests_are_averaged_and_the_papers_figures_stand_beside(tmp_path):
    table = tiny_study.write_table(tmp_path / "t", systems=("ours",), each=1, photos=0, tests=("first", "second"))
    with open(table, "a", newline="") as file:  # the second test is twice as long
        csv.writer(file).writerows(
            [f"second{k}0.wav", f"second{k}0-ours.png", k, "ours", "second"] for k in tiny_study.CLASSES
        )
    study = Study(build(table, tmp_path / "study", num_checks=0))
    who = tiny_study.participant(0)
    tiny_study.answer_all(study, who, lambda trial, one: "positive" if one["test"] == "first" else "negative")
    found = report(study.folder)
    first, second, whole = found.told["results"]
    assert [first["percent"]["positive"], second["percent"]["positive"]] == [100, 0]
    assert whole["mean_of_tests"]["positive"] == 50 and whole["percent"]["positive"] == pytest.approx(100 / 3)
    assert whole["kappa"] is None
    text = found.markdown()
    assert "75 / 13 / 12 Wav2CLIP (UniBriVL); 79 / 10 / 11 UniBriVL (UniBriVL)" in text
    assert "| ours | mean of tests | | | 50.0 % | | 50.0 % | 0.0 % |" in text
    rows = text.splitlines()[:6]
    assert {row.count("|") for row in rows} == {12}


def test_the_papers_shares_are_whole():
    for place in range(2):
        shares = [REPORTED["human_study", kind][place].value for kind in ("positive", "negative", "neither")]
        assert sum(shares) == pytest.approx(1.0)


def test_the_preset_aai_has_no_figures(table, tmp_path):
    study = Study(build(table, tmp_path / "study", preset="aai"))
    assert study.told["question"] == PRESETS["aai"].question and "not known" in PRESETS["aai"].about
    tiny_study.answer_all(study, tiny_study.participant(0), lambda trial, one: "positive")
    found = report(study.folder)
    assert [row["system"] for row in found.told["results"]] == ["ours against theirs"]
    assert found.told["reported"] == [] and "UniBriVL" not in found.markdown()


def test_broken_and_double_lines_are_skipped_and_told(study):
    tiny_study.answer_all(study, tiny_study.participant(0), lambda trial, one: "positive")
    once = report(study.folder).told["results"]
    line = study.answers_path.read_text().splitlines()[0]
    other = {"left": "right", "right": "left"}
    changed = {**json.loads(line), "choice": other[json.loads(line)["choice"]]}
    tiny_study.add_raw(study, json.dumps(changed) + "\n[]\n\n\xff{\n" + line.replace(study.study_id, "0" * 16) + "\n")
    tiny_study.add_raw(study, line[:40])
    found = report(study.folder)
    assert found.told["results"] == once  # the first answer counts
    assert found.told["log"]["answered_twice"] == found.told["log"]["of_another_study"] == 1
    assert found.told["log"]["broken_lines"] == [17, 19, 21]
    for words in ("no answers and were skipped: 17, 19, 21", "1 second answers", "1 answers are of another study"):
        assert words in found.markdown()


def test_the_command_builds_and_reports(table, tmp_path, capsys):
    (tmp_path / "terms.txt").write_text("You agree to listen.\n\nTwice.\n")
    words = [str(table), "--out", str(tmp_path / "study"), "--seed", "3", "--checks", "2", "--trials", "5"]
    assert main(["study", "build", *words, "--title", "Ears", "--consent", str(tmp_path / "terms.txt")]) == 0
    assert "14 trials, 2 of them checks; each participant gets 7" in capsys.readouterr().out
    study = Study(tmp_path / "study")
    assert study.told["consent"] == ["You agree to listen.", "Twice."] and study.told["title"] == "Ears"
    assert main(["study", "report", str(study.folder)]) == 2
    assert "no answers yet" in capsys.readouterr().err
    tiny_study.answer_all(study, tiny_study.participant(0), lambda trial, one: "positive")
    assert main(["study", "report", str(study.folder), "--csv", str(tmp_path / "answers.csv")]) == 0
    assert capsys.readouterr().out == report(study.folder).markdown()
    with open(tmp_path / "answers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7 and sum(row["check"] == "True" for row in rows) == 2
    assert {row["kind"] for row in rows} == {"positive"} and {row["choice"] for row in rows} <= {"left", "right"}
    assert all(row["choice"] == row["positive_side"] and row["study_id"] == study.study_id for row in rows)
    assert main(["study", "report", str(study.folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report(study.folder).told
    assert main(["study", "report", str(tmp_path)]) == 2
    assert "is no study" in capsys.readouterr().err
