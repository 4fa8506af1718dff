"""What the API server writes to its audit log: every write with its body, and some of the reads."""

from typing import Any

SYSTEM_USERS = (
    "system:apiserver",
    "system:kube-controller-manager",
    "system:kube-scheduler",
    "system:kube-proxy",
    "local-cluster:coredns",
    "local-cluster:volume-provisioner",
)
SYSTEM_GROUPS = ("system:nodes", "system:serviceaccounts:kube-system")
READS = ("get", "list", "watch")
WRITES = ("create", "update", "patch", "delete", "deletecollection")


def policy() -> dict[str, Any]:
    """The first rule that matches decides."""
    events = [{"group": group, "resources": ["events"]} for group in ("", "events.k8s.io")]
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "nonResourceURLs": ["*"]},
            {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
            {"level": "None", "resources": [{"group": "authentication.k8s.io"}, {"group": "authorization.k8s.io"}]},
            {"level": "None", "users": list(SYSTEM_USERS), "verbs": list(READS)},
            {"level": "None", "userGroups": list(SYSTEM_GROUPS), "verbs": list(READS)},
            # Their bodies hold credentials.
            {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets", "serviceaccounts/token"]}]},
            {"level": "None", "resources": [{"group": "", "resources": ["nodes/status"]}]},
            {"level": "Metadata", "users": list(SYSTEM_USERS), "verbs": list(WRITES), "resources": events},
            {"level": "Metadata", "userGroups": list(SYSTEM_GROUPS), "verbs": list(WRITES), "resources": events},
            {"level": "Request", "verbs": list(WRITES)},
            {
                "level": "Metadata",
                "verbs": list(READS),
                "resources": [
                    {"group": "finetune.dev"},
                    {"group": "batch", "resources": ["jobs", "jobs/status"]},
                    {"group": "", "resources": ["pods", "pods/log", "pods/status"]},
                    {"group": "apps", "resources": ["deployments", "deployments/status"]},
                ],
            },
            {"level": "None"},
        ],
    }
