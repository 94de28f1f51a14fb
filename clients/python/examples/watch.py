"""Prints who holds and who waits, now and whenever that changes.

    python3 watch.py [PATH]
"""

import sys

from gate_client import Client
from gate_client.report import Held

with Client.connect(name="example") as client:
    for locks in client.watch(*sys.argv[1:2]):
        for line in locks.lines:
            state = "holds" if isinstance(line.state, Held) else "waits for"
            names = ", ".join(place.path or "." for place in line.places if place.path is not None)
            print(f"{line.ticket} {line.owner or line.client} {state} {names}", flush=True)
        print("--", flush=True)
