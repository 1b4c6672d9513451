"""One file a benchmark: `TITLE`, `PROTOCOL` (with a version), `NEEDS` (kinds of things that are encoded),
`load(folder) -> Listing` and `run(vectors, listing, settings) -> list[Found]`.
"""
