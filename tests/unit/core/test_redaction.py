"""Secrets in the words of libraries and servers."""

import json
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL

from finetune_operator.core.redaction import BLANK, blanked

HARD = "pa'ss\\w  ord\"%@:/é"
SECRETS = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), min_size=12, max_size=24
).filter(lambda text: bool(text.strip()))
WRITTEN: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "in libpq's connection string": lambda secret: make_conninfo("", host="h", password=secret),
    "as an SQL literal of that": lambda secret: make_conninfo("", password=secret).replace("'", "''"),
    "in a URL": lambda secret: URL.create("postgresql", "u", secret, "h").render_as_string(hide_password=False),
    "quoted": quote,
    "in a form": quote_plus,
    "in JSON": json.dumps,
    "in Python": repr,
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("one_line", [False, True], ids=["whole", "in one line"])
@pytest.mark.parametrize("secret", [HARD, "hunter2", " leading", "tab\tand\nline", "'", "\\"])
def test_a_secret_is_found_however_it_is_written(write: Callable[[str], str], one_line: bool, secret: str) -> None:
    assert_blank(write, one_line, secret)


@given(st.sampled_from(list(WRITTEN.values())), st.booleans(), SECRETS)
def test_any_secret_is_found(write: Callable[[str], str], one_line: bool, secret: str) -> None:
    assert_blank(write, one_line, secret)


def assert_blank(write: Callable[[str], str], one_line: bool, secret: str) -> None:
    """Nothing of it is left: what stands around it does not depend on it."""
    text = f"no connection: {write(secret)}!"
    said = blanked(" ".join(text.split()) if one_line else text, [secret])
    frame = f"no connection: {write(BLANK)}!".replace(quote(BLANK), BLANK)
    assert bare(said) == bare(frame), said


def bare(text: str) -> str:
    """Without the quotes and the white space that writing a secret may put around it."""
    return "".join(text.replace("'", "").replace('"', "").split())


def test_nothing_else_is_touched() -> None:
    assert blanked("no password was given", [None, ""]) == "no password was given"
    assert blanked("ab abc", ["ab", "abc"]) == f"{BLANK} {BLANK}"
