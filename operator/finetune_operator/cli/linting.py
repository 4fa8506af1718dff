"""`lint`: files of our kinds, judged without a cluster by the CRDs' own schema and rules."""

from collections.abc import Sequence

from finetune_operator.cli.documents import Finding, files_of, findings, read_documents
from finetune_operator.cli.failures import ExitCode, usage
from finetune_operator.cli.options import Format
from finetune_operator.cli.printing import hint, output, print_data, print_line


def lint(files: Sequence[str], form: Format) -> ExitCode:
    """1 where something is to be changed. Raises `Failed` for what can't be read."""
    judged, skipped = 0, 0
    found: list[Finding] = []
    for file in files_of(files):
        for document in read_documents(file):
            if not document.is_ours:
                skipped += 1
                continue
            judged += 1
            found += findings(document)
    if not judged:
        raise usage(
            f"none of our kinds in {', '.join(files)}: there should be a FineTuneJob, ModelVersion, ABTest or "
            "BatchInference"
        )
    if form is not Format.TABLE:
        entries = [finding.__dict__ for finding in found]
        print_data({"resources": judged, "skipped": skipped, "findings": entries}, form)
    else:
        _tell(found)
        count = "1 resource is" if judged == 1 else f"{judged} resources are"
        if not found:
            print_line(f"{count} valid")
        others = f", {skipped} of other kinds not looked at" if skipped else ""
        hint(f"Without a cluster{others}; `ftctl submit --dry-run=server` also asks its API server.")
    return ExitCode.FAILED if found else ExitCode.DONE


def _tell(found: list[Finding]) -> None:
    from rich.text import Text

    console = output()
    for finding in found:
        line = Text.assemble(
            (f"{finding.file}:{finding.line}", "bold"),
            ": ",
            (finding.path, "cyan"),
            ": " if finding.path else "",
            finding.message,
        )
        console.print(line, soft_wrap=True)
