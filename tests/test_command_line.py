"""`ctr` and the stages: help, typing errors, first and last words."""

import resource
import shlex
import subprocess
import sys
import zipfile
from argparse import Action, ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import stages
from pipeline import __main__ as commands
from pipeline.commands import checkout
from pipeline.commands.outcome import outcome
from pipeline.common.errors import PipelineError
from pipeline.common.files import write_json
from pipeline.config import plan
from pipeline.config.params import Params
from tests import project

HEAVY = ("torch", "mlflow", "pandas", "pydantic", "pyarrow")
PROGRAM = "import sys; from pipeline.__main__ import main\ntry: main()\nexcept SystemExit: pass"


def all_parsers(parser: ArgumentParser) -> Iterator[ArgumentParser]:
    yield parser
    for action in parser._actions:
        for inner in getattr(action, "choices", None) or ():
            if isinstance(action.choices, dict):  # of commands
                yield from all_parsers(action.choices[inner])


def test_every_command_and_every_option_has_words() -> None:
    parsers = list(all_parsers(commands.parser("ctr")))
    assert len(parsers) > 10
    for parser in parsers:
        assert parser.description, parser.prog
        assert [
            action.dest for action in parser._actions if not (action.help or action.metavar == "command")
        ] == []


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["snc"], ["--version"]])
def test_help_and_errors_load_nothing_slow(words: list[str]) -> None:
    told = f"{PROGRAM}\nprint([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", told, *words], capture_output=True, text=True, env=project.environment()
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["snc"], "unknown choice 'snc'; did you mean 'sync'?"),
        (["inspect", "a.csv", "--lable", "x"], "unrecognized arguments: --lable x; did you mean --label?"),
        (["completion", "bsh"], "did you mean 'bash'?"),
    ],
)
def test_a_typing_error_is_answered_with_the_nearest_word(
    words: list[str], answer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        commands.parser("ctr").parse_args(words)
    assert ended.value.code == 2
    assert answer in capsys.readouterr().err


def wordy() -> list[tuple[str, ArgumentParser]]:
    """The commands that take words besides options, by name."""
    (_, *found) = all_parsers(commands.parser("ctr"))
    return [(each.prog.split()[-1], each) for each in found if each._get_positional_actions()]


def value_of(action: Action) -> list[str]:
    """Words that an option or a positional takes."""
    one = str(list(action.choices)[-1]) if action.choices else "4"
    return [] if action.nargs == 0 else [one, one] if action.nargs in ("*", "+") else [one]


@pytest.mark.parametrize(("name", "command"), wordy(), ids=[name for name, _ in wordy()])
def test_an_option_may_stand_anywhere_among_the_words_of_a_command(
    name: str, command: ArgumentParser
) -> None:
    given = [part for action in command._get_positional_actions() for part in value_of(action)]
    options = [each for each in command._actions if each.option_strings and each.dest != "help"]
    needed = [word for each in options if each.required for word in (each.option_strings[0], *value_of(each))]
    for option in options:
        written = [option.option_strings[0], *value_of(option)]
        found = [
            vars(commands.parser("ctr").parse_args([name, *needed, *given[:place], *written, *given[place:]]))
            for place in range(len(given) + 1)
        ]
        assert found[0][option.dest] not in (None, option.default), written
        assert all(values == found[0] for values in found), written
    if not options:  # there is nothing to mix, and the words are taken as they are
        assert commands.parser("ctr").parse_args([name, *given])


def test_words_between_options_keep_their_order() -> None:
    parse = commands.parser("ctr").parse_args
    found = parse(["--root", "here", "watch", "clicks", "--model", "fm", "new.csv", "--out", "there"])
    assert (found.dataset, found.model, found.rows) == ("clicks", "fm", Path("new.csv"))
    assert (found.root, found.out) == (Path("here"), Path("there"))
    found = parse(["watch", "--package", "folder", "new.csv"])
    assert (found.dataset, found.rows) == (None, Path("new.csv"))
    found = parse(["compare", "a", "--out", "x", "b", "c"])
    assert found.datasets == ["a", "b", "c"]
    assert parse(["predict", "-", "--package", "p", "-o", "-"]).rows == "-"
    assert parse(["inspect", "--add", "--", "-odd.csv"]).file == Path("-odd.csv")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["train", "tune", "split"])
def test_help_of_a_stage_takes_no_half_second(stage: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [*project.command(stage)[:3], "--help"], capture_output=True, text=True, cwd=project.ROOT
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert f"usage: python -m stages.{stage}" in done.stdout
    # CPU time, not elapsed: 0.05 s here, while importing torch alone takes more than a second
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            {"dataset": "synthetic", "model": "depfm"},
            "params.yaml: model: unknown model 'depfm'; did you mean 'deepfm'?",
        ),
        ({"dataset": "syntetic"}, "params.yaml: data: unknown dataset 'syntetic'; did you mean 'synthetic'?"),
    ],
)
def test_a_wrong_name_is_told_before_the_imports(item: dict[str, str], message: str) -> None:
    with pytest.raises(PipelineError) as caught:
        plan.check_names(project.own_params(), item)
    assert str(caught.value).startswith(message)


@pytest.mark.slow
def test_a_stage_says_which_one_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the order in which DVC runs them; one that is not on the lists has no number."""
    project.make_project(tmp_path, models=["lr", "fm"], variants=["fm-sest"])
    (tmp_path / "dvc.yaml").write_bytes((project.ROOT / "dvc.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    for stage, *options in (
        ("names",),
        ("download", "--dataset", "synthetic"),
        ("train", "--dataset", "synthetic", "--model", "fm"),
        ("tune", "--dataset", "synthetic", "--model", "fm-sest"),
        ("evaluate", "--dataset", "synthetic"),
        ("train", "--dataset", "synthetic", "--model", "deepfm"),
    ):
        monkeypatch.setattr("sys.argv", [stage, *options])
        stages.begin(stage)
    assert capsys.readouterr().out.splitlines() == [
        "stage 1 of 11: names",
        "stage 2 of 11: download synthetic",
        "stage 6 of 11: train fm on synthetic",
        "stage 10 of 11: tune fm-sest on synthetic",
        "stage 11 of 11: evaluate synthetic",
        "train deepfm on synthetic",
    ]
    with pytest.raises(PipelineError, match="unknown stage 'tran'; did you mean 'train'"):
        stages.begin("tran")


def row(model: str, auc: float, p: float | None) -> dict[str, Any]:
    return {
        "model": model,
        "variant": "tuned",
        "mean": {"auc": auc},
        "std": None,
        "valid_auc": 0.75,
        "p_holm": p,
    }


@pytest.mark.parametrize(
    ("p", "words"),
    [
        (0.3, "best row: fm (tuned), test AUC 0.8000, cannot be told from the champion"),
        (0.012, "best row: fm (tuned), test AUC 0.8000 (p = 0.01)"),
    ],
)
def test_the_last_words_tell_the_champion_from_the_best_row(tmp_path: Path, p: float, words: str) -> None:
    folder = tmp_path / "data/reports/log"
    folder.mkdir(parents=True)
    results = [row("lr", 0.79, None), row("fm", 0.8, p)]
    write_json(
        folder / "report.json",
        {"results": results, "champion": {"model": "lr", "variant": "tuned"}, "rows": 9},
    )
    lines = outcome(tmp_path, ["log"]).splitlines()
    assert "champion: lr (tuned), test AUC 0.7900, valid AUC 0.7500, by which it was chosen" in lines
    assert words in lines
    with pytest.raises(PipelineError, match="unknown report 'lgo'; did you mean 'log'"):
        outcome(tmp_path, ["lgo"])


@pytest.mark.thorough
@pytest.mark.slow
def test_the_wheel_has_the_library_its_licence_and_the_command(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "pipeline"):
        subprocess.run(["cp", "-r", project.ROOT / name, source / name], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [
        *pip,
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        tmp_path,
        source,
    ]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"pipeline"}
    place = tmp_path / "elsewhere"
    install = [*pip, "install", "--no-deps", "--no-index", "--target", place, wheel]
    subprocess.run(install, check=True, capture_output=True)
    env = {**project.environment(), "PYTHONPATH": str(place)}
    done = subprocess.run(
        [place / "bin/ctr", "--version"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    cited = YAML(typ="safe").load((project.ROOT / "CITATION.cff").read_text())
    assert done.stdout == f"ctr-pipeline {cited['version']}\n"
    assert f"## {cited['version']}" in (project.ROOT / "CHANGELOG.md").read_text()
    imported = "import pipeline.train.loop as loop; print(loop.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", imported], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.stdout.startswith(str(place)), done.stderr


def test_a_reader_that_has_seen_enough_is_no_traceback() -> None:
    program = "import time; time.sleep(1); print('x' * 100_000)"
    wrapped = f"from pipeline.common.errors import exit_with_message as e; e(lambda: exec({program!r}))"
    command = f"{sys.executable} -c {shlex.quote(wrapped)} | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, cwd=project.ROOT)
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "change"),
    [
        ("models", lambda v: v["model"].update(gfm={"embedding_size": 32})),
        ("models", lambda v: v["model"].update(gfm=32)),
        ("models", lambda v: v.pop("models")),
        ("datasets", lambda v: v["data"]["synthetic"].pop("source")),
        ("datasets", lambda v: v["data"].update(other={})),
    ],
    ids=["no model", "no block", "no list", "no source", "an entry that does not run"],
)
def test_a_list_says_what_is_wrong_with_params_yaml_as_the_check_of_it_does(
    command: str, change: Callable[[dict[str, Any]], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = project.own_params()
    change(values)
    with open(tmp_path / "params.yaml", "w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(values, file)
    with pytest.raises(PipelineError) as expected:
        Params(values)
    monkeypatch.setattr(sys, "argv", ["ctr", "--root", str(tmp_path), command])
    with pytest.raises(PipelineError) as caught:
        commands.main()
    assert str(caught.value) == str(expected.value)


@pytest.mark.parametrize(
    "words",
    [
        "predict --dataset synthetic rows.csv -o scores.csv",
        "package --dataset synthetic -o folder",
        "explain --dataset synthetic rows.csv --row 1",
        "importance --dataset synthetic",
        "watch synthetic rows.csv",
        "export --dataset synthetic -o folder",
        "costs synthetic",
        "compare synthetic --out folder",
        "join --dataset synthetic --model fm",
        "sync",
    ],
)
def test_a_command_outside_a_project_says_so(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ctr", *words.split()])
    with pytest.raises(PipelineError, match=rf"^{tmp_path} is no folder of a project: .* by --root$"):
        commands.main()
    assert not list(tmp_path.iterdir())


def test_the_code_of_another_checkout_is_told_from_that_of_the_project(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, linked, bare = (tmp_path / name for name in ("other", "linked", "bare"))
    (other / "pipeline").mkdir(parents=True)
    (other / "pipeline/__main__.py").touch()
    for folder in (linked, bare):
        folder.mkdir()
    (linked / "pipeline").symlink_to(project.ROOT / "pipeline")
    for root in (project.ROOT, linked, bare, tmp_path / "nowhere"):
        checkout.warn_of_other_code(root)
        assert capsys.readouterr().err == ""
    checkout.warn_of_other_code(other)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"warning: this is the code of {project.ROOT / 'pipeline'}, not of {other}/pipeline"
    )
    assert "`python -m pipeline`" in line


def test_a_warning_of_other_code_precedes_what_the_command_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline/__main__.py").touch()
    monkeypatch.setattr(sys, "argv", ["ctr", "--root", str(tmp_path), "completion", "bash"])
    commands.main()
    assert capsys.readouterr().err.count("warning: this is the code of") == 1


def test_a_sync_outside_a_project_is_no_success(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "--root", str(tmp_path), "sync"],
        cwd=project.ROOT,
        env=project.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert f"{tmp_path} is no folder of a project" in done.stderr


def test_a_list_without_variants_is_one_of_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "params.yaml").write_text("models: [fm]\nmodel: {fm: {}, lr: {}}\n")
    monkeypatch.setattr(sys, "argv", ["ctr", "--root", str(tmp_path), "models"])
    commands.main()
    assert [line[:4] for line in capsys.readouterr().out.splitlines()[:2]] == ["*  f", "   l"]
