"""Slow, obvious twins of the kernels: what the fast ones are compared with on small input."""

import math


def bspline_value(coefficients, u, v):
    """Cubic B-spline at one (u, v) from the definition, with mirrored coefficients and clamped coordinates."""
    n_row, n_col = coefficients.shape
    u, v = min(max(u, 0), n_row - 1), min(max(v, 0), n_col - 1)

    def basis(t):
        t = abs(t)
        if t < 1:
            return 2 / 3 - t * t + t**3 / 2
        return (2 - t) ** 3 / 6 if t < 2 else 0.0

    def mirror(i, n):
        while i < 0 or i >= n:
            i = -i if i < 0 else 2 * (n - 1) - i
        return i

    total = 0.0
    for i in range(math.floor(u) - 2, math.floor(u) + 4):
        for j in range(math.floor(v) - 2, math.floor(v) + 4):
            total += basis(u - i) * basis(v - j) * coefficients[mirror(i, n_row), mirror(j, n_col)]
    return total


def keys_cubic(image, r, c):
    """Keys' cubic convolution (a = -1/2) at one interior point."""

    def weight(t, a=-0.5):
        t = abs(t)
        if t < 1:
            return (a + 2) * t**3 - (a + 3) * t**2 + 1
        return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0

    total = 0.0
    for i in range(math.floor(r) - 1, math.floor(r) + 3):
        for j in range(math.floor(c) - 1, math.floor(c) + 3):
            total += weight(r - i) * weight(c - j) * image[i, j]
    return total


def zones(codes, connectivity):
    """Connected pixels of one code by flood filling: list of sets of (row, col), in the order of their first pixel."""
    near = [(-1, 0), (1, 0), (0, -1), (0, 1)]
    near += [(-1, -1), (-1, 1), (1, -1), (1, 1)] if connectivity == 8 else []
    left = {(r, c) for r in range(codes.shape[0]) for c in range(codes.shape[1]) if codes[r, c]}
    found = []
    for start in sorted(left):
        if start not in left:
            continue
        left.discard(start)
        zone, waiting = {start}, [start]
        while waiting:
            r, c = waiting.pop()
            for dr, dc in near:
                at = (r + dr, c + dc)
                if at in left and codes[at] == codes[start]:
                    left.discard(at)
                    zone.add(at)
                    waiting.append(at)
        found.append(zone)
    return found


def outline(pixels):
    """Union of the squares (x = col, y = row) of pixels."""
    import shapely

    return shapely.union_all([shapely.box(c, r, c + 1, r + 1) for r, c in pixels])
