"""The entry point of `ftctl` and of `kubectl finetune`, which kubectl finds by its name."""

import os
import sys

from finetune_operator.cli.app import app
from finetune_operator.cli.batch_commands import add_batch_commands
from finetune_operator.cli.data_commands import add_data_commands
from finetune_operator.cli.failures import ExitCode
from finetune_operator.cli.named import add_named_commands

__all__ = ["app", "main"]

add_batch_commands(app)
add_data_commands(app)
add_named_commands(app)

PLUGIN = "kubectl-finetune"
COMPLETION = frozenset({"--install-completion", "--show-completion"})


def main() -> None:
    """Help names the command as it was called."""
    as_plugin = os.path.basename(sys.argv[0]).startswith(PLUGIN)
    if as_plugin and COMPLETION & set(sys.argv[1:2]):
        # What it would print takes kubectl's own completion away.
        sys.stderr.write(
            "kubectl's own completion has this, too (kubectl completion --help); for ftctl, the same program: "
            "ftctl --install-completion\n"
        )
        sys.exit(ExitCode.USAGE)
    try:
        app(prog_name="kubectl finetune" if as_plugin else "ftctl")
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; what is left in the buffer must not be complained about at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.DONE)


if __name__ == "__main__":
    main()
