"""The commands, one a module: what it can be told, one library call, what it prints.

What is heavy is imported in a command's body, so that `medfcn --help` answers at once.
"""
