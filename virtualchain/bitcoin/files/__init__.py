"""Blocks from files: bitcoind's `blk*.dat` and `rev*.dat`, or one file in the same format."""
