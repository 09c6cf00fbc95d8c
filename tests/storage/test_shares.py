"""How hosts come to own as many partitions each, whoever comes and goes, and in whatever order they look."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from holdfast.storage.postgres.ownership import share


def take(owners: dict[int, str], mine: str, hosts: int) -> bool:
    """Let a host take its share; return whether anything moved. Nothing is taken from the others."""
    kept, taken = share(owners, mine, hosts)
    assert all(owners[each] == mine for each in kept)
    assert all(owners[each] == "" for each in taken)
    before = dict(owners)
    owners.update({each: "" for each, owner in owners.items() if owner == mine})
    owners.update(dict.fromkeys([*kept, *taken], mine))
    return owners != before


@pytest.mark.parametrize("partitions", [1, 2, 3, 7, 12, 64])
@pytest.mark.parametrize("seed", range(30))
def test_hosts_come_to_own_as_many_or_one_less_and_then_nothing_moves(partitions: int, seed: int) -> None:
    dice = random.Random(seed)
    owners, hosts = dict.fromkeys(range(partitions), ""), ["first"]
    for number in range(30):
        if dice.random() < 0.6 or len(hosts) == 1:
            hosts.append(f"host {number}")
        else:
            gone = hosts.pop(dice.randrange(len(hosts)))
            owners.update({each: "" for each, owner in owners.items() if owner == gone})
        rounds = 0
        while sum(take(owners, host, len(hosts)) for host in dice.sample(hosts, len(hosts))):
            rounds += 1
            assert rounds < 4, "it does not come to rest"
        counts = Counter(owners.values())
        assert "" not in counts
        assert max(counts[host] for host in hosts) - min(counts[host] for host in hosts) <= 1


def test_only_what_is_over_a_share_moves() -> None:
    owners = {each: "a" if each < 4 else "b" for each in range(8)}
    for host in ("a", "b", "c"):
        take(owners, host, 3)
    assert [owners[each] for each in (0, 1, 4, 5)] == ["a", "a", "b", "b"]
    assert sorted(Counter(owners.values()).values()) == [2, 3, 3]
