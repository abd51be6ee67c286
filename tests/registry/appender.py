"""A process that appends to a ledger when told to: one line in, the number to expect (or `any`), one line out."""

import sys

from infra.canonical import digest
from registry.decisions import Decision
from registry.ledger import Ledger, LedgerConflict


def main() -> None:
    ledger = Ledger(sys.argv[1])
    decision = Decision(
        feature="writing",
        base_release=digest("release"),
        action="promote",
        version=1,
        package=digest("package"),
        actor=sys.argv[2],
        reason="race",
    )
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            ledger.append(decision, expected_number=None if line.strip() == "any" else int(line))
            print("won", flush=True)
        except LedgerConflict:
            print("lost", flush=True)


if __name__ == "__main__":
    main()
