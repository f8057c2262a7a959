"""The demo model's training text, generated from word lists and small grammars written for this project.

Nothing here is copied from elsewhere; nothing here knows about models or tensors.
"""
