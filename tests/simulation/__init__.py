"""The engine in simulations: forks, faults and crashes at random, from a seed; the end is a fresh index's.

python -m tests.simulation --seed 1 --runs 20 --jobs 2
"""
