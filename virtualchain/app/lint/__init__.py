"""What callbacks must not do in Python: the rules, and a look at their code before it runs."""
