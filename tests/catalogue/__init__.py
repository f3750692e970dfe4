"""The fault catalogue: what can go wrong, and the right answer; ``test_rows`` says where each is held."""
