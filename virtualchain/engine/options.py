"""What must hold before apps are run, beyond the contract that each of them keeps by itself."""

from collections.abc import Mapping, Sequence
from typing import get_args

from virtualchain.app.contract import Contract
from virtualchain.errors import UsageError
from virtualchain.settings import Policy


def policies(
    contracts: Sequence[Contract], on_deep_fork: Policy | Mapping[str, Policy] | None
) -> dict[str, Policy]:
    """Give the policy of each app for which one was named."""
    names = [contract.name for contract in contracts]
    if on_deep_fork is None:
        return {}
    wanted = dict.fromkeys(names, on_deep_fork) if isinstance(on_deep_fork, str) else dict(on_deep_fork)
    for name, policy in wanted.items():
        if name not in names:
            raise UsageError(f"on_deep_fork names {name}: there is no such app among {', '.join(names)}")
        if policy not in get_args(Policy):
            raise UsageError(f"on_deep_fork={policy!r}: choose {', '.join(get_args(Policy))}")
    return wanted


def check(contracts: Sequence[Contract], confirmations: int) -> None:
    """Raise UsageError where apps have one name, or an app cannot do with so many confirmations."""
    names = [contract.name for contract in contracts]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(f"two apps have the name {', '.join(twice)}")
    for contract in contracts:
        if contract.confirmations is not None and confirmations < contract.confirmations:
            raise UsageError(
                f"app {contract.name} takes a block only with {contract.confirmations} confirmations: "
                f"raise --confirmations from {confirmations}"
            )
        if 0 < contract.window <= confirmations:
            raise UsageError(
                f"app {contract.name} takes consensus hashes of the last {contract.window} blocks, but "
                f"with {confirmations} confirmations authors see none of these: lower --confirmations, or "
                "widen the app's window (0 if it uses no consensus hashes)"
            )
