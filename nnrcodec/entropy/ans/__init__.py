"""rANS with static tables, the coder of our own data unit."""
