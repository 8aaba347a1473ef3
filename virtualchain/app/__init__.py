"""What an author writes: `App`, and the contract that every implementation keeps."""
