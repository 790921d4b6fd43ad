"""Changing tags of a TIFF in place, as writers that tifffile is not would have written them."""

import struct

TILE_OFFSETS, TILE_BYTES, STRIP_OFFSETS, STRIP_BYTES = 324, 325, 273, 279
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 13: 4, 16: 8}
_FORMS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q"}


class Tags:
    """Directories of a classic little-endian TIFF, those of SubIFDs last; saved on leaving."""

    def __init__(self, path):
        self._path, self._data = path, bytearray(path.read_bytes())
        self.places = list(self._chain(struct.unpack_from("<I", self._data, 4)[0]))
        for place in tuple(self.places):
            self.places += self._values(place, 330) if self._find(place, 330) else []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._path.write_bytes(self._data)

    def put(self, page, tag, values):
        """Replace the values of a tag by as many others."""
        kind, count, place = self._find(self.places[page], tag)
        struct.pack_into(f"<{count}{_FORMS[kind]}", self._data, place, *values)

    def get(self, page, tag):
        return self._values(self.places[page], tag)

    def leave_out(self, page, numbers, *, tiles=True):
        """Say of tiles or strips that they were never written: place 0 and length 0."""
        for tag in (TILE_OFFSETS, TILE_BYTES) if tiles else (STRIP_OFFSETS, STRIP_BYTES):
            values = self.get(page, tag)
            self.put(page, tag, [0 if n in numbers else v for n, v in enumerate(values)])

    def _chain(self, place):
        while place:
            yield place
            (count,) = struct.unpack_from("<H", self._data, place)
            (place,) = struct.unpack_from("<I", self._data, place + 2 + 12 * count)

    def _find(self, directory, tag):
        (count,) = struct.unpack_from("<H", self._data, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            found, kind, number = struct.unpack_from("<HHI", self._data, entry)
            if found == tag:
                inside = _SIZES[kind] * number <= 4
                at = entry + 8 if inside else struct.unpack_from("<I", self._data, entry + 8)[0]
                return kind, number, at
        return None

    def _values(self, directory, tag):
        kind, count, place = self._find(directory, tag)
        return list(struct.unpack_from(f"<{count}{_FORMS[kind]}", self._data, place))
