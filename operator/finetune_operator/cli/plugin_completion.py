"""`kubectl_complete-finetune`, which kubectl's own completion calls with the words after `kubectl finetune`.

It answers with a line for each completion, a tab between what is typed and its help, and a last line for the shell:
https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/
"""

import io
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout, suppress

from finetune_operator.cli.main import app

AS_FTCTL = "ftctl"
DEFAULT_DIRECTIVE = ":0"
"""The shell completes files where we know of nothing, as it does for ftctl."""


def main() -> None:
    """The last word is the one to complete; it may be empty."""
    sys.stdout.writelines(f"{line}\n" for line in (*completions(sys.argv[1:]), DEFAULT_DIRECTIVE))


def completions(words: Sequence[str]) -> list[str]:
    """Those that ftctl has itself; of the shells that it has them for, fish reads the same lines as kubectl."""
    os.environ |= {
        "_FTCTL_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": shlex.join([AS_FTCTL, *words]),
    }
    told = io.StringIO()
    with redirect_stdout(told), suppress(SystemExit):
        app(prog_name=AS_FTCTL)
    return [line for line in told.getvalue().splitlines() if line]


if __name__ == "__main__":
    main()
