"""How the benchmarks show their options; knows none."""

import argparse


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Show the module's text as it is written, and every default."""
