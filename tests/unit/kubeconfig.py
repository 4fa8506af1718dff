"""How a program under test finds the API server that a test plays."""

_TEXT = """
apiVersion: v1
kind: Config
current-context: test
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
clusters: [{{name: test, cluster: {{server: "{server}"}}}}]
users: [{{name: test, user: {{token: test}}}}]
"""


def kubeconfig(server: str) -> str:
    """The file's text; `server` is a URL."""
    return _TEXT.format(server=server)
