"""A whole fleet on this machine: a model repository, a hub, and host sites in processes of their own.

What the demo plays and the scenario tests check: everything goes through the commands that people use, and is looked
at from outside (an inference answer, files, processes, what the hub says).
"""
