"""How good depth is, and what it takes to compare it with known depth."""
