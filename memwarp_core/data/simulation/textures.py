"""Procedural surface images, (size, size, 3) uint8 RGB, drawn from a random generator.

Every pattern keeps its period well above what 6 pixels show at the distances of the scenes: finer patterns alias
and are not learned by small networks.
"""

import colorsys

import cv2
import numpy as np

TEXTURE_SIZE = 128

Color = tuple[float, float, float]
"""RGB in [0, 1]."""


def hsv(hue: float, saturation: float, value: float) -> Color:
    """A colour from hue (turns, any real number), saturation and value in [0, 1]."""
    return colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))


def vary(rng: np.random.Generator, color: Color, amount: float) -> Color:
    """The colour with each channel moved by at most `amount`, still in [0, 1]."""
    moved = np.clip(np.asarray(color) + rng.uniform(-amount, amount, 3), 0.0, 1.0)
    return float(moved[0]), float(moved[1]), float(moved[2])


def smooth_noise(rng: np.random.Generator, cells: int, size: int = TEXTURE_SIZE) -> np.ndarray:
    """(size, size) float noise in about [-1, 1] that tiles without a seam and varies over `cells` cells."""
    grid = rng.uniform(-1.0, 1.0, (cells, cells))
    tiled = np.pad(grid, 2, mode="wrap")
    scale = size / cells
    big = cv2.resize(tiled, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    margin = round(2 * scale)
    return np.asarray(big[margin : margin + size, margin : margin + size])


def cloudy(rng: np.random.Generator, color: Color, contrast: float, cells: int = 8) -> np.ndarray:
    """One colour with two octaves of soft brightness noise: concrete, earth, dusty metal."""
    noise = smooth_noise(rng, cells) + 0.5 * smooth_noise(rng, 2 * cells)
    return to_uint8(np.asarray(color) * (1.0 + contrast * noise[..., None]))


def two_colored(mask: np.ndarray, first: Color, second: Color) -> np.ndarray:
    """`second` where the mask (H, W) is true, `first` elsewhere."""
    return to_uint8(np.where(mask[..., None], np.asarray(second), np.asarray(first)))


def checker(rng: np.random.Generator, first: Color, second: Color, cells: int) -> np.ndarray:
    """A checkerboard of cells x cells fields, a little uneven in brightness."""
    index = np.arange(TEXTURE_SIZE) * cells // TEXTURE_SIZE
    board = two_colored((index[:, None] + index[None, :]) % 2 == 1, first, second)
    return to_uint8(board / 255.0 * (1.0 + 0.06 * smooth_noise(rng, 8)[..., None]))


def tiles(rng: np.random.Generator, color: Color, joint: Color, cells: int) -> np.ndarray:
    """Square tiles of slightly different brightness with joints between them."""
    step = TEXTURE_SIZE // cells
    shade = np.kron(rng.uniform(0.85, 1.1, (cells, cells)), np.ones((step, step)))
    position = np.arange(TEXTURE_SIZE) % step
    line = (position < 3)[:, None] | (position < 3)[None, :]
    return to_uint8(np.where(line[..., None], np.asarray(joint), np.asarray(color) * shade[..., None]))


def planks(rng: np.random.Generator, wood: Color, frame: Color) -> np.ndarray:
    """One side of a wooden crate: boards, dark gaps, a frame around them and a diagonal brace."""
    size = TEXTURE_SIZE
    row, column = np.mgrid[0:size, 0:size]
    boards = 4
    board = row * boards // size
    shade = rng.uniform(0.82, 1.08, boards)[board] * (1.0 + 0.05 * smooth_noise(rng, 8))
    image = np.asarray(wood) * shade[..., None]
    image = np.where(((row % (size // boards)) < 4)[..., None], image * 0.45, image)
    width = round(size * 0.14)
    brace = np.abs(row - column) < width * 0.6
    edge = np.minimum.reduce([row, column, size - 1 - row, size - 1 - column])
    dark_line = (edge >= width) & (edge < width + 3) | (np.abs(np.abs(row - column) - width * 0.6) < 2)
    image = np.where(brace[..., None], np.asarray(frame), image)
    image = np.where(dark_line[..., None], np.asarray(frame) * 0.4, image)
    image = np.where((edge < width)[..., None], np.asarray(frame) * 1.05, image)
    return to_uint8(image)


def to_uint8(image: np.ndarray) -> np.ndarray:
    """From [0, 1] floats to uint8, clipped."""
    return np.clip(image * 255.0, 0, 255).astype(np.uint8)
