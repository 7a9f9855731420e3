"""The user's credentials for Kaggle, where Kaggle's own programs look for them."""

import json
import os
import re
from pathlib import Path

import requests
from requests.auth import HTTPBasicAuth

from pipeline.common.errors import PipelineError
from pipeline.download.fetch import Auth


def credentials() -> Auth | None:
    """Return what signs requests to Kaggle, from the environment or a file; None if there is none.

    No message contains a token, a user name or a key.

    Raises:
        PipelineError: a token is malformed, or a file does not contain what it should.
    """
    environment = os.environ.get
    if token := environment("KAGGLE_API_TOKEN"):
        return _bearer(token, "KAGGLE_API_TOKEN")
    if (user := environment("KAGGLE_USERNAME")) and (key := environment("KAGGLE_KEY")):
        return HTTPBasicAuth(_checked(user, "KAGGLE_USERNAME"), _checked(key, "KAGGLE_KEY"))
    home = Path.home()
    folders = [home / ".kaggle", Path(environment("XDG_CONFIG_HOME") or home / ".config", "kaggle")]
    if chosen := environment("KAGGLE_CONFIG_DIR"):
        folders = [Path(chosen)]
    for folder in folders:
        if (file := folder / "access_token").is_file():
            return _bearer(file.read_text(errors="replace"), str(file))
        if (file := folder / "kaggle.json").is_file():
            return _basic(file)
    return None


def _basic(file: Path) -> Auth:
    """Sign with the user name and key of a kaggle.json."""
    try:
        values = json.loads(file.read_bytes())
        return HTTPBasicAuth(_checked(values["username"], str(file)), _checked(values["key"], str(file)))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise PipelineError(f"{file} contains no username and key: get a new one from Kaggle") from None


def _bearer(token: str, where: str) -> Auth:
    """Sign with a token."""
    header = f"Bearer {_checked(token, where)}"

    def sign(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = header
        return request

    return sign


def _checked(secret: str, where: str) -> str:
    """Return a user name, key or token without white space around it."""
    secret = secret.strip()
    if not re.fullmatch(r"[!-~]+", secret):
        raise PipelineError(f"{where} is empty or has characters that no token of Kaggle has")
    return secret
