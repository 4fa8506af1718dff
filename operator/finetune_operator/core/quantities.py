"""Kubernetes quantities as numbers: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/"""

import re
from decimal import Decimal

_FORM = re.compile(r"([0-9]*\.?[0-9]+)(?:[eE](-?[0-9]+)|(m|k|[KMGT]i?))?")
_FACTORS = {
    "m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
}  # fmt: skip
_LARGEST = Decimal(2**63 - 1)
"""Beyond it Kubernetes itself does not count."""


def number(quantity: int | str) -> Decimal:
    """`500m` is 0.5, `2Gi` is 2147483648. Raises ValueError for what is none; the schema admits -1 and 1e999, too."""
    form = _FORM.fullmatch(str(quantity))
    if form is None or form[3] == "K" or len(form[2] or "") > 3:
        raise ValueError(f"{str(quantity)!r} is no quantity")
    value = Decimal(form[1]) * Decimal(10) ** int(form[2] or 0) * _FACTORS.get(form[3], Decimal(1))
    if value > _LARGEST:
        raise ValueError(f"{str(quantity)!r} is no quantity")
    return value
