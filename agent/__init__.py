"""The program for one edge cluster: fetch, verify, stage, switch, report."""
