"""`hftlab bench`: speeds, latencies and memory as results that can be checked and compared.

Every case runs in a process of its own, pinned to cores, warm unless a cold start is what is asked for. A
result has the digest of what was run, the spread of its repetitions, and what the machine did meanwhile.
`cases` says what is measured, `measure` measures it, `session` runs many, `comparison` holds two results
against each other, `targets` one against what was asked of this toolkit, `page` shows it.
"""
