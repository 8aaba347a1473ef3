"""Replay recorded runs of a protocol through the real engine, and compare: what all such runners share.

A runner is a `Suite`: how its files are read, and what is compared. The command, its worker processes, the
source of recorded blocks and the forks are the same for all.
"""
