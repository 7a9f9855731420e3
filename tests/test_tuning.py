"""The search: default first, no repeats, resumable with the same result, a pruner that waits, fair finals."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from pipeline.common.errors import Diverged, PipelineError
from pipeline.config.space import Dimension, Tune
from pipeline.train.course import LogFn
from pipeline.tune import finals, search
from pipeline.tune.finals import Finalist
from pipeline.tune.finished import Finished
from pipeline.tune.points import decode

pytestmark = pytest.mark.slow

SPACE = {
    "model.hidden": Dimension(choices=[[8], [16, 8]]),
    "model.size": Dimension(low=2, high=64, log=True),
    "train.lr": Dimension(low=1e-4, high=1e-1, log=True),
}
START = {"model.hidden": [16, 8], "model.size": 8, "train.lr": 1e-3}
STARTS = [START, {"model.hidden": [8], "model.size": 64, "train.lr": 1e-2}]
SETTINGS = Tune(trials=12, startup_trials=4, pruner_startup_trials=2, pruner_warmup_evaluations=1, space={})


class Killed(BaseException):
    """Stands for a process that goes away: nothing may catch it."""


def height(point: dict[str, Any]) -> float:
    """A smooth hill over the space with its top at lr 0.01, size 16, one hidden layer."""
    return (
        0.8
        - 0.01 * (math.log10(point["train.lr"]) + 2) ** 2
        - 0.005 * abs(math.log2(point["model.size"]) - 4)
        - 0.01 * (len(point["model.hidden"]) - 1)
    )


def climb(number: int, point: dict[str, Any], log: LogFn) -> None:
    """Three evaluations that approach the point's height."""
    for step in (1, 2, 3):
        log({"valid_auc": height(point) - 0.1 / step, "step": step}, step)


def run(journal: Path, objective: search.Objective = climb, settings: Tune = SETTINGS) -> list[Finished]:
    """Search and drop the importances."""
    return search.search("study", SPACE, STARTS, objective, settings, journal=journal)[0]


def winner(trials: list[Finished], metric: str = "auc") -> Finished:
    """The best trial on one seed."""
    return search.finalists(trials, metric, 1)[0]


def test_the_starts_come_first_and_the_search_beats_them(tmp_path: Path) -> None:
    seen: list[int] = []
    trials, _ = search.search(
        "study",
        SPACE,
        STARTS,
        climb,
        SETTINGS,
        after_trial=lambda trials: seen.append(len(trials)),
        journal=tmp_path / "j.jsonl",
    )
    assert [trial.point for trial in trials[:2]] == STARTS
    assert len(trials) == 12
    assert [trial.number for trial in trials] == list(range(12))
    assert seen == list(range(1, 13))
    best = winner(trials)
    assert best.value is not None
    assert trials[0].value is not None
    assert best.value > trials[0].value
    assert all(isinstance(trial.point["model.hidden"], list) for trial in trials)


def test_poor_trials_are_pruned_and_keep_their_curve(tmp_path: Path) -> None:
    trials = run(tmp_path / "j.jsonl")
    pruned = [trial for trial in trials if trial.state == "PRUNED"]
    assert pruned
    assert all(len(trial.curve) < 3 for trial in pruned)
    assert all(len(trial.curve) == 3 for trial in trials if trial.state == "COMPLETE")


def curves(*each: list[float]) -> search.Objective:
    """Trials that go through these values, evaluation by evaluation."""

    def objective(number: int, point: dict[str, Any], log: LogFn) -> None:
        for step, value in enumerate(each[number], 1):
            log({"valid_auc": value, "step": step}, step)

    return objective


def states(tmp_path: Path, objective: search.Objective, **settings: Any) -> list[tuple[str, int]]:
    """How each trial ended, and after how many evaluations."""
    changed = SETTINGS.model_copy(update={"pruner_quantile": 0.25, **settings})
    return [(trial.state, len(trial.curve)) for trial in run(tmp_path / "j.jsonl", objective, changed)]


@pytest.mark.parametrize("warmup", [1, 3, 5])
def test_a_trial_that_is_slow_at_first_is_kept_and_one_that_stays_poor_is_not(
    tmp_path: Path, warmup: int
) -> None:
    """The warm-up counts evaluations from 1: so many are never the last."""
    good, poor = [0.7, 0.75, 0.78, 0.79, 0.79, 0.79, 0.79], [0.5] * 7
    slow = [0.5] * warmup + [0.79] * (7 - warmup)
    objective = curves(good, good, good, slow, poor)
    settings = {"trials": 5, "pruner_startup_trials": 3, "pruner_warmup_evaluations": warmup}
    assert states(tmp_path, objective, **settings) == [("COMPLETE", 7)] * 4 + [("PRUNED", warmup + 1)]


def test_the_bar_does_not_rise_with_every_survivor(tmp_path: Path) -> None:
    """Of trials in random order about a quarter is pruned, however many there are."""
    values = [0.6 + 0.001 * (37 * i % 101) for i in range(60)]
    objective = curves(*([value] * 4 for value in values))
    ends = states(tmp_path, objective, trials=60, pruner_startup_trials=4, startup_trials=99)
    assert 10 <= sum(state == "PRUNED" for state, _ in ends) <= 18


def test_no_trial_is_pruned_at_quantile_zero_and_among_equals(tmp_path: Path) -> None:
    values = [[0.7 - 0.01 * i] * 4 for i in range(8)]
    assert states(tmp_path / "a", curves(*values), trials=8, pruner_quantile=0.0) == [("COMPLETE", 4)] * 8
    assert states(tmp_path / "b", curves(*[[0.7] * 4] * 8), trials=8) == [("COMPLETE", 4)] * 8


def test_same_seed_same_search_and_another_seed_another(tmp_path: Path) -> None:
    assert run(tmp_path / "a.jsonl") == run(tmp_path / "b.jsonl")
    other = SETTINGS.model_copy(update={"seed": 2})
    assert run(tmp_path / "c.jsonl", settings=other) != run(tmp_path / "a.jsonl")


@pytest.mark.parametrize("kill_at", [0, 1, 2, 5, 11])
@pytest.mark.parametrize("step", [1, 3])
def test_a_killed_search_ends_like_one_that_was_not(tmp_path: Path, kill_at: int, step: int) -> None:
    def dies(number: int, point: dict[str, Any], log: LogFn) -> None:
        for i in (1, 2, 3):
            if (number, i) == (kill_at, step):
                raise Killed
            log({"valid_auc": height(point) - 0.1 / i, "step": i}, i)

    with pytest.raises(Killed):
        run(tmp_path / "killed.jsonl", dies)
    assert run(tmp_path / "killed.jsonl") == run(tmp_path / "whole.jsonl")


def test_a_larger_budget_goes_on_where_the_smaller_ended(tmp_path: Path) -> None:
    small = run(tmp_path / "j.jsonl", settings=SETTINGS.model_copy(update={"trials": 5}))
    calls = []

    def counted(number: int, point: dict[str, Any], log: LogFn) -> None:
        calls.append(number)
        climb(number, point, log)

    whole = run(tmp_path / "j.jsonl", counted)
    assert whole[:5] == small
    assert calls == list(range(5, 12))
    assert run(tmp_path / "j.jsonl", counted, SETTINGS.model_copy(update={"trials": 5})) == small
    assert len(calls) == 7


def test_no_point_is_tried_twice_and_a_small_space_is_exhausted(tmp_path: Path) -> None:
    space = {"model.size": Dimension(choices=[1, 2, 4])}
    points = []

    def note(number: int, point: dict[str, Any], log: LogFn) -> None:
        points.append(point["model.size"])
        log({"valid_auc": point["model.size"] / 10}, 1)

    trials, _ = search.search("s", space, [{"model.size": 2}], note, SETTINGS, journal=tmp_path / "j.jsonl")
    assert sorted(points) == [1, 2, 4]
    assert len(trials) == 3


def test_an_empty_space_tries_the_default_once(tmp_path: Path) -> None:
    def note(number: int, point: dict[str, Any], log: LogFn) -> None:
        assert point == {}
        log({"valid_auc": 0.7}, 1)

    trials, importances = search.search("s", {}, [{}], note, SETTINGS, journal=tmp_path / "j.jsonl")
    assert len(trials) == 1
    assert importances == {}


def test_a_diverged_trial_counts_but_never_wins(tmp_path: Path) -> None:
    def wild(number: int, point: dict[str, Any], log: LogFn) -> None:
        if number in (0, 3):
            raise Diverged("nan")
        climb(number, point, log)

    trials = run(tmp_path / "j.jsonl", wild)
    assert trials[0].state == trials[3].state == "PRUNED"
    assert winner(trials).number not in (0, 3)

    def always(number: int, point: dict[str, Any], log: LogFn) -> None:
        raise Diverged("nan")

    trials = run(tmp_path / "k.jsonl", always)
    with pytest.raises(PipelineError, match="every trial"):
        winner(trials)


def test_the_finalists_are_the_best_complete_trials_and_the_default(tmp_path: Path) -> None:
    ends = [("COMPLETE", 0.5), ("PRUNED", None), ("COMPLETE", 0.7), ("COMPLETE", 0.6), ("COMPLETE", 0.7)]
    trials = [Finished(i, state, value, {}, []) for i, (state, value) in enumerate(ends)]

    def numbers(metric: str, count: int) -> list[int]:
        return [trial.number for trial in search.finalists(trials, metric, count)]

    assert numbers("auc", 2) == [2, 4, 0]
    assert numbers("auc", 3) == [2, 4, 3, 0]
    assert numbers("auc", 9) == [2, 4, 3, 0]
    assert numbers("logloss", 2) == [0, 3]


def test_a_trial_counts_with_the_weights_that_it_kept(tmp_path: Path) -> None:
    """Not with a better evaluation, whose weights it did not keep since it goes by another metric."""

    def keeps_the_last(number: int, point: dict[str, Any], log: LogFn) -> float:
        log({"valid_auc": 0.8, "step": 1}, 1)
        log({"valid_auc": 0.7, "step": 2}, 2)
        return 0.7

    settings = SETTINGS.model_copy(update={"trials": 2})
    assert [trial.value for trial in run(tmp_path / "j.jsonl", keeps_the_last, settings)] == [0.7, 0.7]


def test_logloss_is_minimised(tmp_path: Path) -> None:
    def loss(number: int, point: dict[str, Any], log: LogFn) -> None:
        log({"valid_logloss": 1 - height(point)}, 1)

    trials = run(tmp_path / "j.jsonl", loss, SETTINGS.model_copy(update={"metric": "logloss"}))
    values = [trial.value for trial in trials if trial.state == "COMPLETE" and trial.value is not None]
    assert winner(trials, "logloss").value == min(values)


def test_importances_name_the_axis_that_matters(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"trials": 25, "pruner_startup_trials": 99})

    def only_lr(number: int, point: dict[str, Any], log: LogFn) -> None:
        log({"valid_auc": -((math.log10(point["train.lr"]) + 2) ** 2)}, 1)

    _, importances = search.search("s", SPACE, [START], only_lr, settings, journal=tmp_path / "j.jsonl")
    assert set(importances) == {"ped_anova", "fanova"}
    for shares in importances.values():
        assert set(shares) == set(SPACE)
        assert max(shares, key=lambda axis: shares[axis]) == "train.lr"
        # further digits are not the same in a process that has trained and in one that has not
        assert all(share == round(share, 9) for share in shares.values())


def test_a_busy_study_is_an_error_and_another_study_is_not(tmp_path: Path) -> None:
    with FileLock(tmp_path / ".study.lock"), pytest.raises(PipelineError, match="busy"):
        run(tmp_path / "j.jsonl")  # a second lock object excludes like another process
    assert run(tmp_path / "j.jsonl")


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    five = SETTINGS.model_copy(update={"trials": 5})
    small = run(journal, settings=five)
    with open(journal, "ab") as file:
        file.write(b'{"op_code": 5, "tri')
    assert run(journal, settings=five) == small
    assert journal.read_bytes().endswith(b"}\n")


def test_a_changed_value_never_counts(tmp_path: Path) -> None:
    """One digit of a line: it is named, or it is one that decides nothing."""
    journal, four = tmp_path / "j.jsonl", SETTINGS.model_copy(update={"trials": 4})
    expected = run(journal, settings=four)
    whole = journal.read_bytes()
    digits = [at for at, byte in enumerate(whole) if 0x30 <= byte <= 0x39]
    named = 0
    for at in digits[:: len(digits) // 60]:
        journal.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            assert run(journal, settings=four) == expected
        except PipelineError as error:
            named += "is damaged" in str(error)
    assert named > 10
    journal.rename(tmp_path / "away")  # as the message says
    assert run(journal, settings=four) == expected


def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    journal = tmp_path / "j.jsonl"
    journal.write_bytes(b"not json\nnot json\n")
    with pytest.raises(PipelineError, match=r"j\.jsonl is damaged"):
        run(journal)


SCRIPT = textwrap.dedent(
    """
    import json, sys, time
    from dataclasses import asdict
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from tests import test_tuning as t

    def slow(number, point, log):
        for step in (1, 2, 3):
            time.sleep(0.03)
            log({"valid_auc": t.height(point) - 0.1 / step, "step": step}, step)

    trials = t.run(Path(sys.argv[1]), slow)
    print(json.dumps([asdict(trial) for trial in trials]))
    """
)


@pytest.mark.thorough
def test_sigkill_at_any_moment_changes_nothing(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent
    journal = tmp_path / "killed.jsonl"
    command = [sys.executable, "-c", SCRIPT, str(journal), str(root)]
    kills = 0
    for extra in range(3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=root)
        while process.poll() is None and (
            not journal.exists() or journal.stat().st_size < 3000 * (extra + 1)
        ):
            time.sleep(0.005)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills
    done = subprocess.run(command, capture_output=True, cwd=root, check=True, text=True)
    resumed = json.loads(done.stdout.splitlines()[-1])
    whole = [json.loads(json.dumps(vars(trial))) for trial in run(tmp_path / "whole.jsonl")]
    assert resumed == whole


def test_the_lines_of_a_search_are_read_by_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No digest; what differs from the default, the best so far, and what was done before."""
    space = {
        "model.dropout": Dimension(low=0.0, high=0.5, step=0.1),
        "train.lr": Dimension(choices=[0.1, 0.2]),
    }
    starts = [{"model.dropout": 0.1, "train.lr": 0.1}, {"model.dropout": 0.3, "train.lr": 0.1}]
    points = []

    def objective(number: int, point: search.Point, log: Any) -> float:
        points.append(point)
        log({"valid_auc": 0.7 + number / 100}, 1)
        return 0.7 + number / 100

    for trials in (1, 3):
        settings = SETTINGS.model_copy(update={"trials": trials})
        search.search("log-fm-0123abcd", space, starts, objective, settings, journal=tmp_path / "j.jsonl")
    *_, last = lines = capsys.readouterr().out.splitlines()
    paper = "the paper's configuration: dropout 0.3"
    assert lines == [
        "log-fm trial-000 (1 of 1): valid AUC 0.7000, best 0.7000 by trial-000; the default",
        "log-fm: 1 of 3 trials were done before",
        f"log-fm trial-001 (2 of 3): valid AUC 0.7100, best 0.7100 by trial-001; {paper}",
        last,
    ]
    assert last.startswith("log-fm trial-002 (3 of 3): valid AUC 0.7200, best 0.7200 by trial-002; ")
    assert "paper" not in last
    assert [point["model.dropout"] for point in points[:2]] == [0.1, 0.3]


def test_a_stepped_axis_has_round_values() -> None:
    space = {"dropout": Dimension(low=0.0, high=0.5, step=0.1)}
    assert decode(space, {"dropout": 3 * 0.1}) == {"dropout": 0.3}
    assert 3 * 0.1 != 0.3


def test_the_verdict_names_the_winner_and_its_gain() -> None:
    default, other = Finalist(0, [1, 2], [0.7, 0.72], [1, 1]), Finalist(6, [1, 2], [0.73, 0.73], [1, 1])
    text = "winner: trial-006, mean valid AUC 0.7300 over 2 seeds, +0.0200 against the default"
    assert finals.verdict(other, [default, other], "auc", 1) == text


# ---- waves ----

WAVE = SETTINGS.model_copy(update={"wave": 4, "trials": 10})


def test_a_wave_is_proposed_from_the_waves_before_it_alone(tmp_path: Path) -> None:
    """Whatever the trials of a wave give, its other trials are the same; the next wave learns from them."""
    ends = [run(tmp_path / f"{i}.jsonl", climb, WAVE) for i in range(2)]
    assert ends[0] == ends[1]
    assert len({json.dumps(trial.point, sort_keys=True) for trial in ends[0]}) == 10

    def other(number: int, point: dict[str, Any], log: LogFn) -> None:
        log({"valid_auc": height(point) - (0.2 if number == 4 else 0.0), "step": 1}, 1)

    changed = run(tmp_path / "other.jsonl", other, WAVE.model_copy(update={"startup_trials": 2}))
    plain = run(tmp_path / "plain.jsonl", one_evaluation, WAVE.model_copy(update={"startup_trials": 2}))
    assert [trial.point for trial in changed[:8]] == [trial.point for trial in plain[:8]]
    assert [trial.point for trial in changed[8:]] != [trial.point for trial in plain[8:]]


def one_evaluation(_number: int, point: dict[str, Any], log: LogFn) -> None:
    log({"valid_auc": height(point), "step": 1}, 1)


@pytest.mark.parametrize(("kill_at", "step"), [(1, 1), (5, 2), (6, 3), (8, 1)])
def test_a_search_in_waves_that_is_killed_ends_like_one_that_was_not(
    tmp_path: Path, kill_at: int, step: int
) -> None:
    def dies(number: int, point: dict[str, Any], log: LogFn) -> None:
        for at in (1, 2, 3):
            if (number, at) == (kill_at, step):
                raise Killed
            log({"valid_auc": height(point) - 0.1 / at, "step": at}, at)

    with pytest.raises(Killed):
        run(tmp_path / "j.jsonl", dies, WAVE)
    assert run(tmp_path / "j.jsonl", climb, WAVE) == run(tmp_path / "whole.jsonl", climb, WAVE)


def test_a_larger_budget_ends_the_wave_that_the_smaller_began(tmp_path: Path) -> None:
    run(tmp_path / "j.jsonl", climb, WAVE.model_copy(update={"trials": 6}))
    assert run(tmp_path / "j.jsonl", climb, WAVE) == run(tmp_path / "whole.jsonl", climb, WAVE)


def test_a_wave_of_one_is_the_search_without_waves(tmp_path: Path) -> None:
    assert SETTINGS.wave == 1
    one_by_one = run(tmp_path / "a.jsonl", climb, SETTINGS.model_copy(update={"wave": 1}))
    assert one_by_one == run(tmp_path / "b.jsonl", climb, SETTINGS)


def test_a_small_space_is_exhausted_in_the_middle_of_a_wave(tmp_path: Path) -> None:
    space = {"model.size": Dimension(choices=[1, 2, 3, 4, 5, 6])}

    def size(_number: int, point: dict[str, Any], log: LogFn) -> None:
        log({"valid_auc": point["model.size"] / 10, "step": 1}, 1)

    trials, _ = search.search("s", space, [{"model.size": 2}], size, WAVE, journal=tmp_path / "j.jsonl")
    assert sorted(trial.point["model.size"] for trial in trials) == [1, 2, 3, 4, 5, 6]
