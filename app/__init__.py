"""The page process: starts trainer and chat processes and shows what they write; never reaches torch."""
