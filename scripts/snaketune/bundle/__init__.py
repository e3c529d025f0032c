"""One archive of a run to hand on: what it holds, how its bytes are proven, and how it is run again elsewhere."""
