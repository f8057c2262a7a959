"""How many tokens a forward pass holds at most, by device type. Light: estimates use it too."""

TOKEN_BUDGET = {"cpu": 4096, "other": 8192}
