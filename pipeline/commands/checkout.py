"""Whether a command runs in a project, and by the code of that project."""

import sys
from pathlib import Path

from pipeline.common.errors import PipelineError

CODE = Path(__file__).parents[1]


def require_project(root: Path) -> None:
    """Raise if a folder is none of a project: what is missing there is not the result of a stage.

    Raises:
        PipelineError: it has no params.yaml.
    """
    if not (root / "params.yaml").exists():
        raise PipelineError(
            f"{root.resolve()} is no folder of a project: it has no params.yaml; change to the project's "
            "folder, or name it before the command by --root"
        )


def warn_of_other_code(root: Path) -> None:
    """Warn if a project has code of its own and another one runs, as the `ctr` of another checkout does."""
    own = root / CODE.name
    if (own / "__main__.py").exists() and not own.samefile(CODE):
        print(
            f"warning: this is the code of {CODE}, not of {own.resolve()}; for that one run "
            "`python -m pipeline` in the project's folder, or install it: `pip install -e .`",
            file=sys.stderr,
        )
