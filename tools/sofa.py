"""Reads SOFA (arXiv 2311.09090): probes, each an identity and a stereotype in one sentence, and the identities alone.

Its score compares, stereotype by stereotype, how much more a model is surprised by a probe than by the probe's identity.
"""
from dataclasses import dataclass

from support import InvalidInput
from tables import not_empty, rows_of, sentence

COLUMNS = ("category", "identity", "stereotype", "probe")


@dataclass(frozen=True)
class ProbeSet:
    """The probes of one stereotype, over the identities of one category."""

    category: str
    identities: tuple
    probes: tuple  # one for each identity
    where: str


def read_sofa(path):
    """Rows with category, identity, stereotype and probe, whatever the columns' capitals; an id, where there is one, tells
    stereotypes apart. @returns ([ProbeSet], number of rows left out because their identity was there already)"""
    order, sets, repeated = {}, {}, 0
    for where, original in rows_of(path):
        row = {str(name).lower(): value for name, value in original.items()}
        category, identity, stereotype, probe = (sentence(row, name, where) for name in COLUMNS)
        key = (category, str(row.get("id", "")), stereotype)
        order.setdefault(category, {}).setdefault(identity, len(order[category]))
        _, probes = sets.setdefault(key, (where, {}))
        repeated += identity in probes
        probes.setdefault(identity, probe)
    found = []
    not_empty(sets, path, "probes")
    for (category, _, stereotype), (where, probes) in sets.items():
        if len(probes) < 2:
            raise InvalidInput(f"{where}: the stereotype '{stereotype[:60]}' has one identity of the category '{category[:60]}'; "
                               "at least 2 are compared")
        identities = sorted(probes, key=order[category].__getitem__)  # the same roles in every item of a category
        found.append(ProbeSet(category, tuple(identities), tuple(probes[identity] for identity in identities), where))
    return found, repeated
