"""Takes paths, does something that nobody else may do meanwhile, lets go.

    python3 hold.py PATH...
"""

import sys

from gate_client import Client, Lost, TimedOut


def tell(why: Lost) -> None:
    print(f"the hold was taken away: {why}", file=sys.stderr, flush=True)


def main() -> None:
    paths = sys.argv[1:]
    with Client.connect(name="example") as client:
        try:
            with client.hold(*paths, reason="an example", timeout=10, on_lost=tell) as hold:
                print(f"let in, fencing token {hold.token}; press Enter to let go", flush=True)
                sys.stdin.readline()
                # Before what cannot be undone, or is done beyond the view:
                hold.check()
        except TimedOut:
            for line in client.why(paths[0]).lines:
                print(f"held by {line.owner or line.client}: {line.reason or 'no reason given'}")
            sys.exit(124)
        except Lost:
            sys.exit("the hold was lost: the work is to be done again")


main()
