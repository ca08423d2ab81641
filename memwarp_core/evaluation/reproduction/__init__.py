"""The paper's tables and figures in small, from the shipped weights and freshly simulated clips.

    rows -> measure -> claims, figures -> draw, report -> reproduce

See docs/reproduction.md for what comes out.
"""
