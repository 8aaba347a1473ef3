"""What an app's author writes: `App`, and the contract that every implementation fulfills."""
