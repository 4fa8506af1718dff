"""Image builds download packages the way the host does, and nothing of the host's own paths gets in."""

import stat
from pathlib import Path

import pytest

from local_cluster.host_access import pip_configuration, proxy_arguments, uv_configuration, write_secrets

MIRROR = "https://mirror.example/simple"
UV_CASES = [
    ("nothing set", {}, {}, None),
    ("uv's own variable", {"UV_DEFAULT_INDEX": MIRROR}, {}, f'index-url = "{MIRROR}"\n'),
    ("uv's older variable", {"UV_INDEX_URL": MIRROR}, {}, f'index-url = "{MIRROR}"\n'),
    ("pip's index serves uv too", {}, {"index-url": MIRROR}, f'index-url = "{MIRROR}"\n'),
    (
        "uv's own comes before pip's",
        {"UV_INDEX_URL": "https://a/"},
        {"index-url": MIRROR},
        'index-url = "https://a/"\n',
    ),
    (
        "several extra indexes",
        {},
        {"extra-index-url": "https://a/ https://b/"},
        'extra-index-url = ["https://a/", "https://b/"]\n',
    ),
]


@pytest.mark.parametrize(("environment", "pip", "expected"), [c[1:] for c in UV_CASES], ids=[c[0] for c in UV_CASES])
def test_uv_configuration(
    tmp_path: Path, environment: dict[str, str], pip: dict[str, str], expected: str | None
) -> None:
    assert uv_configuration({"XDG_CONFIG_HOME": str(tmp_path), **environment}, pip) == expected


def test_uv_takes_the_hosts_file_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "uv").mkdir()
    (tmp_path / "uv" / "uv.toml").write_text("native-tls = true\n")
    assert uv_configuration({"XDG_CONFIG_HOME": str(tmp_path)}, {}) == "native-tls = true\n"


def test_pip_configuration_names_settings_as_its_file_does() -> None:
    text = pip_configuration({"index-url": MIRROR, "default-timeout": "180"})
    assert text == f"[global]\ntimeout = 180\nindex-url = {MIRROR}\n"


def test_proxies_are_taken_in_either_case() -> None:
    environment = {"https_proxy": "http://p:1", "NO_PROXY": "localhost", "HOME": "/root"}
    assert proxy_arguments(environment) == {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "localhost"}


def test_secrets_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("certificate")
    environment = {"SSL_CERT_FILE": str(bundle), "PIP_INDEX_URL": MIRROR, "PIP_FIND_LINKS": "/host/only"}
    secrets = write_secrets(tmp_path / "secrets", {"PATH": "/usr/bin:/bin", **environment})
    assert secrets["ca"] == bundle
    assert MIRROR in secrets["pip"].read_text()
    assert "/host/only" not in secrets["pip"].read_text()
    assert MIRROR in secrets["uv"].read_text()
    assert {stat.S_IMODE(secrets[name].stat().st_mode) for name in ("pip", "uv")} == {0o600}
