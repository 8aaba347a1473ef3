"""Simulations of the engine with random forks, faults and crashes; the result must equal a fresh index.

python -m tests.simulation --seed 1 --runs 20 --jobs 2
"""
