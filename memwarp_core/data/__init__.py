"""Clips of frames with ground truth: their formats, bags, and simulated scenes."""
