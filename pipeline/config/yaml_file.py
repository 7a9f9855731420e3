"""Read a YAML file of the user; errors name the line."""

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, SequenceNode

from pipeline.common.errors import PipelineError

NEWLINE = "\n"


def read(path: Path) -> tuple[str, Any]:
    """Return the text of a file and the values in it.

    Raises:
        PipelineError: it is missing, or is not valid YAML.
    """
    try:
        data = path.read_bytes()
        text = data.decode()
        return text, parsed(text)
    except FileNotFoundError:
        raise PipelineError(f"{path} is missing; run the command from the project's folder") from None
    except DuplicateKeyError as error:
        found = re.search('duplicate key "(.*?)" with', error.problem)
        key, begins = found[1] if found else "", f"its block begins in line {error.context_mark.line + 1}"
        first = re.search(rf"^[\"']?{re.escape(key)}[\"']?\s*:", text, re.MULTILINE)
        if error.context_mark.column == 0 and first:  # the block is the file
            begins = f"the first is in line {text.count(NEWLINE, 0, first.start()) + 1}"
        raise PipelineError(
            f"{path}:{error.problem_mark.line + 1}: the key {key!r} occurs a second time ({begins}): remove "
            "one of the two"
        ) from None
    except MarkedYAMLError as error:
        inside = ""
        if error.context and error.context_mark:
            inside = f" {error.context} that begins in line {error.context_mark.line + 1}"
        raise PipelineError(
            f"{path} is not valid YAML in line {error.problem_mark.line + 1}: {error.problem}{inside}"
        ) from None
    except UnicodeDecodeError as error:
        line = data.count(NEWLINE.encode(), 0, error.start) + 1
        raise PipelineError(
            f"{path}:{line}: the byte 0x{data[error.start]:02x} is no text in UTF-8: save the file as UTF-8, "
            f"or convert it, such as by `iconv -f CP1252 -t UTF-8 {path.name} > new.yaml`"
        ) from None
    except (ValueError, RecursionError) as error:  # looks like a date or a number and is none
        raise PipelineError(f"{path}{_place(text)}: {error}; put quotes round a text") from None
    except YAMLError as error:
        raise PipelineError(f"{path} is not valid YAML: {error}") from None


def _place(text: str) -> str:
    """Return `:<line>` of the first value that cannot be made from its text, if it can be found."""
    yaml = YAML(typ="safe", pure=True)
    try:
        pending = [yaml.compose(text)]
    except RecursionError:
        return ""
    while pending:
        node = pending.pop()
        if isinstance(node, MappingNode):
            pending += [each for pair in reversed(node.value) for each in reversed(pair)]
        elif isinstance(node, SequenceNode):
            pending += reversed(node.value)
        else:
            try:
                yaml.constructor.construct_object(node, deep=True)
            except ValueError:
                return f":{node.start_mark.line + 1}"
    return ""


def parsed(text: str) -> Any:
    """Return the values in a text."""
    return YAML(typ="safe", pure=True).load(text)
