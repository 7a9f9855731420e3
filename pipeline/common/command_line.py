"""A command line that answers a typing error with the nearest valid word."""

import re
from argparse import ArgumentParser
from difflib import get_close_matches
from typing import Any, NoReturn

from pipeline.common.errors import unknown


class Parser(ArgumentParser):
    """`ArgumentParser` without abbreviations whose errors suggest the word that was meant."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def parse_known_args(self, *arguments: Any, **options: Any) -> Any:
        """Refuse what is left over here, where the options of this command are known, not at the top."""
        values, rest = super().parse_known_args(*arguments, **options)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return values, rest

    def error(self, message: str) -> NoReturn:
        """Print usage and message, and exit with 2."""
        choice = re.search(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", message)
        option = re.match(r"unrecognized arguments: (-\S+)", message)
        if choice:
            known = [word.strip(" '\"") for word in choice[2].split(",")]
            message = message[: choice.start()] + unknown("choice", choice[1], known)
        elif option and (
            near := get_close_matches(option[1], re.findall(r"--[\w-]+", self.format_help()), n=1)
        ):
            message += f"; did you mean {near[0]}?"
        super().error(message)
