"""How much a forward pass holds at most. Light: estimates use it too."""

# Tokens of a pass, by device type.
TOKEN_BUDGET = {"cpu": 4096, "other": 8192}
# Logits that exist at a time: 0.27 GB in fp32, and enough rows (441 with a vocabulary of 152k) to keep a GPU busy.
CHUNK_ELEMENTS = 2**26
