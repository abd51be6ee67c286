"""The heads of the ledger's chains as the channel knows them: what devices were told cannot be unsaid in the ledger."""

from registry.chain import Head
from registry.channel import Channel


def anchored_heads(channel: Channel) -> dict[str, Head]:
    """By feature, the latest ledger row that the channel has followed.

    Raises:
        FactoryError: a pointer is damaged.
    """
    heads: dict[str, Head] = {}
    for pointer in channel.pointers():
        known = heads.get(pointer.feature)
        if known is None or known.number < pointer.number:
            heads[pointer.feature] = Head(pointer.number, pointer.row)
    return heads
