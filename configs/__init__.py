"""Training recipes: one short Python file each, its docstring the launch command, the expected result and the cost."""
