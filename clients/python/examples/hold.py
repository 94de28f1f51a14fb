"""Takes paths, does something that nobody else may do meanwhile, lets go.

    python3 hold.py PATH...
"""

import sys

from gate_client import Client, Lost, TimedOut


def main() -> None:
    with Client.connect(name="example") as client:
        try:
            with client.hold(*sys.argv[1:], reason="an example", timeout=10) as hold:
                print(f"let in, fencing token {hold.token}")
                # … work; and before what cannot be undone, or is done outside of the view:
                hold.check()
        except TimedOut:
            for line in client.why(sys.argv[1]).lines:
                print(f"held by {line.owner or line.client}: {line.reason or 'no reason given'}")
            sys.exit(124)
        except Lost as lost:
            sys.exit(f"the work is to be done again: {lost}")


main()
