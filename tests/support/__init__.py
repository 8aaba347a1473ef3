"""What several families of tests share: servers, chains, models, and helpers that compare."""
