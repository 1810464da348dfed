"""`hftlab bench`: speeds, latencies and memory as results that can be checked and compared.

Every case runs in a process of its own, pinned to cores, and warm except for cold starts. A result has the
digest of its run, the spread of its repetitions, and the interruptions by the machine.

`cases` declares what is measured, `measure` measures one, `session` runs many. `report.comparison` compares
two results, `targets` compares one with the targets of this toolkit, `report.page` draws it.
"""
