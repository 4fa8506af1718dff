"""The inputs' hash changes exactly when the image could change."""

from pathlib import Path

import pytest

from local_cluster.build_context import inputs_hash, is_ignored, local_images, parse_ignore_file

# Expectations from Docker's documentation of .dockerignore.
IGNORE_CASES = [
    ("a name at the root", "temp", "temp", True),
    ("only at the root", "temp", "a/temp", False),
    ("what lies below an ignored directory", ".venv", ".venv/bin/python", True),
    ("a star stays within one level", "*/temp*", "a/temporary.txt", True),
    ("a star doesn't cross a level", "*/temp*", "a/b/temporary.txt", False),
    ("two stars cross any number of levels", "**/*.pyc", "a/b/c.pyc", True),
    ("two stars match no level too", "**/*.pyc", "c.pyc", True),
    ("a question mark is one character", "temp?", "tempa", True),
    ("a question mark isn't none", "temp?", "temp", False),
    ("a leading slash is the context's root", "/docs", "docs/a.md", True),
    ("a trailing slash doesn't matter", "docs/", "docs/a.md", True),
    ("comments and empty lines say nothing", "# docs\n\n", "docs/a.md", False),
    ("an exception brings back", "*\n!operator", "operator/x.py", False),
    ("everything else stays out", "*\n!operator", "README.md", True),
    ("the last line that matches decides", "*.md\n!README.md\nREADME*", "README.md", True),
    ("a dot is a dot", "a.c", "abc", False),
]


@pytest.mark.parametrize(
    ("rules", "path", "ignored"), [case[1:] for case in IGNORE_CASES], ids=[c[0] for c in IGNORE_CASES]
)
def test_dockerignore_rules(rules: str, path: str, ignored: bool) -> None:
    assert is_ignored(path, parse_ignore_file(rules)) is ignored


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    (directory / "src").mkdir(parents=True)
    (directory / "src" / "main.py").write_text("print()")
    (directory / "notes.md").write_text("notes")
    (directory / "Dockerfile").write_text("FROM localhost/base:1\nCOPY src /src\n")
    (directory / ".dockerignore").write_text("*.md\n")
    return directory


def hash_of(context: Path, arguments: dict[str, str] | None = None, base: str = "sha256:1") -> str:
    return inputs_hash(context, context / "Dockerfile", arguments or {}, {"localhost/base:1": base})


def test_the_hash_is_the_same_for_the_same_inputs(context: Path) -> None:
    before = hash_of(context)
    (context / "notes.md").write_text("ignored by the build")
    (context / "src" / "main.py").touch()
    assert hash_of(context) == before


@pytest.mark.parametrize("change", ["content", "new file", "renamed", "mode", "Dockerfile", "link"])
def test_the_hash_changes_with_each_file_that_the_build_reads(context: Path, change: str) -> None:
    before = hash_of(context)
    source = context / "src" / "main.py"
    match change:
        case "content":
            source.write_text("print(1)")
        case "new file":
            (context / "src" / "more.py").write_text("")
        case "renamed":
            source.rename(context / "src" / "other.py")
        case "mode":
            source.chmod(0o755)
        case "Dockerfile":
            (context / "Dockerfile").write_text("FROM scratch")
        case "link":
            (context / "src" / "link").symlink_to("main.py")
    assert hash_of(context) != before


def test_the_hash_changes_with_arguments_and_base_image(context: Path) -> None:
    hashes = {hash_of(context), hash_of(context, {"A": "1"}), hash_of(context, base="sha256:2")}
    assert len(hashes) == 3


def test_a_dockerignore_beside_the_dockerfile_comes_first(context: Path) -> None:
    (context / "Dockerfile.dockerignore").write_text("*\n!src\n")
    before = hash_of(context)
    (context / "unrelated.txt").write_text("")
    assert hash_of(context) == before


def test_local_images_are_found_in_the_dockerfile_and_in_arguments() -> None:
    dockerfile = "ARG BASE\nFROM localhost/a/b:dev AS x\nFROM ${BASE}\nFROM debian:12\n"
    assert local_images(dockerfile, {"BASE": "localhost/c:1"}) == {"localhost/a/b:dev", "localhost/c:1"}
