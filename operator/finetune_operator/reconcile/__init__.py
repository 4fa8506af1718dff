"""One level-triggered decision per kind: observed -> plan. Pure: same input, same plan."""
