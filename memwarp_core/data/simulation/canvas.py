"""MuJoCo's OpenGL drawing for one model: what `mujoco.Renderer` does, with fewer passes.

Colour and depth come from one pass, and silhouettes may be drawn small; in software rendering that halves the time
of a frame.
"""

from typing import Any

import mujoco
import numpy as np

from memwarp_core.errors import DataError


class Canvas:
    """An offscreen image of a model. Holds an OpenGL context: close it."""

    def __init__(self, model: Any, width: int, height: int, *, shadows: bool) -> None:
        """Raises: DataError where no OpenGL context can be had."""
        self._model = model
        self._context: Any = None
        try:
            self._gl = mujoco.GLContext(width, height)
            self._gl.make_current()
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        except Exception as err:  # what is raised depends on the OpenGL platform
            raise DataError(
                f"MuJoCo could not open an OpenGL context ({err}); without a screen set MUJOCO_GL=egl (or osmesa), "
                "which needs the system's EGL library (libegl1 and Mesa, or a graphics driver)."
            ) from err
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
        self._scene = mujoco.MjvScene(model, maxgeom=400)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = shadows
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = False
        self._full = mujoco.MjrRect(0, 0, width, height)
        self._small = mujoco.MjrRect(0, 0, width // 2, height // 2)

    def close(self) -> None:
        if self._context is not None:
            self._context.free()
            self._context = None
            self._gl.free()

    def look(self, data: Any, camera: Any, option: Any) -> None:
        """Choose the state, the camera (an MjvCamera) and what of the scene is drawn next."""
        mujoco.mjv_updateScene(self._model, data, option, None, camera, mujoco.mjtCatBit.mjCAT_ALL, self._scene)

    def color_and_depth(self) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 RGB, and (H, W) float32 metres along the optical axis."""
        color = np.empty((self._full.height, self._full.width, 3), np.uint8)
        buffer = np.empty((self._full.height, self._full.width), np.float32)
        mujoco.mjr_render(self._full, self._scene, self._context)
        mujoco.mjr_readPixels(color, buffer, self._full, self._context)
        near = self._model.vis.map.znear * self._model.stat.extent
        far = self._model.vis.map.zfar * self._model.stat.extent
        # The buffer holds 1 at the near plane and 0 at the far one, linear in 1 / depth.
        depth = near * far / (near + buffer.astype(np.float64) * (far - near))
        return color[::-1], depth[::-1].astype(np.float32)

    def geoms(self) -> np.ndarray:
        """(H, W) int32, the id of the geom seen in each pixel, -1 for the sky."""
        shown = self._scene.geoms[: self._scene.ngeom]
        geom_of_code = np.full(self._scene.ngeom + 1, -1, np.int32)
        for drawn in shown:
            if drawn.segid >= 0 and drawn.objtype == int(mujoco.mjtObj.mjOBJ_GEOM):
                geom_of_code[drawn.segid + 1] = drawn.objid
        return geom_of_code[self._codes(self._full)]

    def drawn_area(self) -> int:
        """About how many pixels of the full image something is drawn in, counted in a smaller one."""
        return 4 * int(np.count_nonzero(self._codes(self._small)))

    def _codes(self, rect: Any) -> np.ndarray:
        image = np.empty((rect.height, rect.width, 3), np.uint8)
        flags = self._scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = True
        mujoco.mjr_render(rect, self._scene, self._context)
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = False
        mujoco.mjr_readPixels(image, None, rect, self._context)
        wide = image[::-1].astype(np.int32)
        return np.asarray(wide[..., 0] + (wide[..., 1] << 8) + (wide[..., 2] << 16))
